"""The fixtures that give tests the store itself."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("workers", [0, 2])
def test_the_table_is_shared_by_all(suite, workers):
    suite.write(
        test_it="""
        @BOTH
        @pytest.mark.parametrize("number", range(5))
        def test_count(shm_table, worker, number):
            note(str(shm_table.increment("count")))
        """
    )
    suite.run(workers=workers).assert_outcomes(passed=10)
    assert sorted(map(int, suite.noted)) == list(range(1, 11))


def test_the_client_is_the_tests_own(suite):
    suite.write(
        test_it="""
        import subprocess, sys

        CHILD = "import shmstore, sys; shmstore.connect(sys.argv[1]).table('t')['k'] = 1"

        @shared_fixture
        def data():
            return [1]

        def test_close(shm_client, data):
            subprocess.run(
                [sys.executable, "-c", CHILD, shm_client.address], check=True
            )
            assert shm_client.table("t")["k"] == 1
            shm_client.close()

        def test_after(data):
            assert data == [1]
        """
    )
    suite.run(workers=0).assert_outcomes(passed=2)


def test_namespaces(suite):
    suite.write(
        things="""
        import shmstore

        class Things(shmstore.Store):
            table, resource, prefix = "things", "thing", "th"
            indexes = ("kind",)
        """,
        test_it="""
        import subprocess, sys
        import shmstore
        from things import Things

        CHILD = '''
        import sys, shmstore, things
        client = shmstore.connect(sys.argv[1])
        print(things.Things(client).get("th_1")["worker"])
        things.Things(client).insert({"id": "th_2", "kind": "child"})
        '''

        @BOTH
        @pytest.mark.parametrize("ends_well", [True, False])
        def test_it(shm_client, shm_namespace, worker, ends_well):
            note(shm_namespace)
            assert shmstore.namespaces.current() == shm_namespace
            things = Things(shm_client)
            assert things.count() == 0
            things.insert({"id": "th_1", "worker": worker, "kind": "own"})
            note("have it")
            while sum(line.endswith("have it") for line in notes()) < 2:
                time.sleep(0.001)
            done = subprocess.run(
                [sys.executable, "-c", CHILD.replace("\\n        ", "\\n"), shm_client.address],
                check=True, capture_output=True, text=True,
            )
            assert done.stdout.strip() == things.get("th_1")["worker"] == worker
            assert [thing["id"] for thing in things.find(kind="child")] == ["th_2"]
            assert ends_well

        @BOTH
        def test_after(shm_client, worker):
            assert shmstore.namespaces.current() == "global"
            things = Things(shm_client)
            seen = {line.split()[1] for line in notes() if "test-" in line}
            for name in seen:
                if name.startswith(f"test-{worker}-"):
                    assert things.list_namespace(name) == []
        """,
    )
    suite.run().assert_outcomes(passed=4, failed=2)
    assert len({note for note in suite.noted if note.startswith("test-")}) == 4
