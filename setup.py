"""Builds the Python code of the protobuf schema; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
PACKAGE = "easyrec_lite/protos"


class BuildProtos(build_py):
    """Generates easyrec_lite/protos/*_pb2.py from protos/*.proto, then copies the package.

    An editable install gets them in the source tree (git ignores them there), a wheel in the build folder.
    """

    def run(self) -> None:
        super().run()
        generate_protos(ROOT if self.editable_mode else Path(self.build_lib).resolve())


def generate_protos(output: Path) -> None:
    """Writes the generated package below `output`, so that `output/easyrec_lite/protos` can be imported."""
    import grpc_tools
    from grpc_tools import protoc

    target = output / PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    (target / "__init__.py").write_text('"""Generated from protos/*.proto at build; do not edit."""\n')
    sources = sorted((ROOT / "protos").glob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PACKAGE}={ROOT / 'protos'}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        *(f"{PACKAGE}/{source.name}" for source in sources),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed on protos/*.proto; its messages are above")


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildProtos})
