"""`doctor --backup` writes a copy that --db opens."""


def test_backup_copies_the_database_and_reports_its_content(cli, trip, tmp_path):
    copy = tmp_path / "copy.db"
    cli("rm", "a2a2")
    facts = cli.json("doctor", "--backup", str(copy))
    assert facts == {
        "database": str(cli.db), "backup": str(copy), "size_bytes": copy.stat().st_size, "conversations": 1,
    }  # fmt: skip
    assert cli("export", "--all", "--db", str(copy)).stdout == cli("export", "--all").stdout
    cli("undo", "--db", str(copy))
    assert cli.json("ls", "--db", str(copy))[0]["nodes"] == 5
    assert cli.json("ls")[0]["nodes"] == 4


def test_backup_refuses_other_files_and_a_missing_database(cli, trip, tmp_path):
    assert "belongs to the database itself" in cli("doctor", "--backup", str(cli.db), status=1).stderr
    missing = tmp_path / "gone.db"
    assert "no database" in cli("doctor", "--db", str(missing), "--backup", str(tmp_path / "x"), status=1).stderr
    assert not missing.exists() and not (tmp_path / "x").exists()


def test_backup_loads_no_torch(cli, trip, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    cli("doctor", "--backup", str(tmp_path / "copy.db"))


def test_backup_removes_no_file_with_the_name_of_its_temporary_file(cli, trip, tmp_path):
    database = cli.db.rename(tmp_path / "copy.db.part")
    cli("doctor", "--db", str(database), "--backup", str(tmp_path / "copy.db"))
    assert [row["nodes"] for row in cli.json("ls", "--db", str(database))] == [5]
    assert [row["nodes"] for row in cli.json("ls", "--db", str(tmp_path / "copy.db"))] == [5]
