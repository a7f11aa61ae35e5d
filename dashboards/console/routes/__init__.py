"""Routes: one module for each page. They ask ``queries``, hand the answer to a template, and decide nothing else."""
