"""Hold the generated boards against Grafana's own TypeScript types. A check for developers with Node; not part of ``make test``.

    npm install --prefix FOLDER @grafana/schema@13 typescript@5
    python scripts/grafana_types.py FOLDER

It writes FOLDER/boards.ts, in which each board, each panel's options and each panel's drawing options are constants of Grafana's types, and
runs ``tsc --strict``. Enumerations are loosened to their texts, since JSON has no enumerations.
"""

import json
import subprocess
import sys
from pathlib import Path

GENERATED = Path(__file__).parent.parent / "dashboards" / "generated"
PANELS = {  # Grafana's panel type → (folder of its types, whether it has drawing options of its own)
    "timeseries": ("timeseries", True),
    "stat": ("stat", False),
    "bargauge": ("bargauge", False),
    "table": ("table", True),
    "state-timeline": ("statetimeline", True),
}
HEAD = """\
import type * as g from "@grafana/schema";
type J<T> = T extends string ? `${T}` : T extends number | boolean ? T
    : T extends Array<infer U> ? Array<J<U>> : T extends object ? {[K in keyof T]: J<T[K]>} : T;
type P<T> = T extends Array<infer U> ? Array<P<U>> : T extends object ? {[K in keyof T]?: P<T[K]>} : T;
type O<T> = P<J<T>>;
"""
TYPES = "./node_modules/@grafana/schema/dist/types/raw/composable/{folder}/panelcfg/x/types.gen"


def source() -> str:
    """The TypeScript text."""
    lines = [HEAD]
    lines += [f'import type * as {folder} from "{TYPES.format(folder=folder)}";' for folder, _ in PANELS.values()]
    for number, path in enumerate(sorted(GENERATED.glob("icecap-*.json"))):
        board = json.loads(path.read_bytes())
        lines.append(f"export const board{number}: J<g.Dashboard> = {json.dumps(board)};")
        for panel in board["panels"]:
            folder, draws = PANELS[panel["type"]]
            name = f"{number}_{panel['id']}"
            lines.append(f"export const options{name}: O<{folder}.Options> = {json.dumps(panel['options'])};")
            custom = panel["fieldConfig"]["defaults"]["custom"]
            lines.append(f"export const custom{name}: {f'O<{folder}.FieldConfig>' if draws else '{}'} = {json.dumps(custom)};")
    return "\n".join(lines) + "\n"


def main(folder: Path) -> int:
    """Write the file and run the compiler; its exit code is ours."""
    target = folder / "boards.ts"
    target.write_text(source(), encoding="utf-8")
    compiler = folder / "node_modules" / ".bin" / "tsc"
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"]
    return subprocess.run([compiler, *options, target.name], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
