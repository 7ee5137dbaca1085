"""A PostgreSQL server on this machine."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness.faults import SECONDS, free_port


class PostgreSQL:
    """A database server of its own in a temporary folder; as root it runs as the user postgres, since it must."""

    def __init__(self) -> None:
        found = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
        if found is None:
            pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self.binaries, self.port = Path(found).resolve().parent, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        self.user: str | None = None
        if os.getuid() == 0:
            self.user = "postgres"
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self._call("initdb", "--pgdata", str(self.folder / "data"), "--username=bism", "--auth=trust", "--no-sync")
        self.start()
        self._call("createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=bism", "mlflow")

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://bism@127.0.0.1:{self.port}/mlflow"

    def _call(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.binaries / name), *arguments],
            user=self.user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=SECONDS,
        )

    def lock(self, user: str, password: str) -> None:
        """Makes a user, who owns the database and needs a password."""
        quoted = password.replace("'", "''")
        self._sql(f"CREATE ROLE {user} LOGIN PASSWORD '{quoted}'; ALTER DATABASE mlflow OWNER TO {user}; "
                  f"GRANT ALL ON SCHEMA public TO {user}")  # fmt: skip
        self._call(
            "createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=bism", f"--owner={user}", "optuna"
        )
        rules = "host all bism 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)
        self._sql("SELECT pg_reload_conf()")

    def _sql(self, text: str) -> None:
        self._call("psql", "--host=127.0.0.1", f"--port={self.port}", "--username=bism", "--command", text, "mlflow")

    def dump(self) -> str:
        """All that the databases hold, without who may use them."""
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=bism"]
        dumps = [[str(self.binaries / "pg_dump"), *where, name] for name in ("mlflow", "optuna")]
        return "".join(subprocess.check_output(dump, text=True, timeout=SECONDS) for dump in dumps)

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "--wait", "start")

    def stop(self) -> None:
        """At once, as by a power failure."""
        self._call("pg_ctl", "-D", str(self.folder / "data"), "--mode=immediate", "--wait", "stop")
