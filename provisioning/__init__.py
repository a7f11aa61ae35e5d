"""Who a device is and what it needs to speak: identities, certificates, broker rules, bundles, and programs on the machine."""
