"""The wire format, spoken by another's code: frames are those of multiprocess.connection."""

from __future__ import annotations

from multiprocess.connection import Client as connect_to

from shmstore.codec import message_pack, message_unpack, pack
from shmstore.protocol import CLIENT_ID_BYTES, PROTOCOL_VERSION
from shmstore.server import Server


def test_a_plain_multiprocess_connection_can_ask_the_writer(server: Server) -> None:
    with connect_to(server.address, family="AF_UNIX") as connection:

        def ask(*request: object) -> list[object]:
            connection.send_bytes(message_pack(list(request)))
            answer = message_unpack(connection.recv_bytes())
            assert isinstance(answer, list)
            return answer

        number, status, facts = ask(0, 0, "hello", [PROTOCOL_VERSION, bytes(CLIENT_ID_BYTES)])
        assert (number, status) == (0, 0)
        assert isinstance(facts, dict)
        assert facts["pid"] == server.writer_pid
        assert ask(1, 1, "put", ["t", "", "k", pack({"a": 1})])[:2] == [1, 0]
        large = b"x" * 300_000
        assert ask(2, 2, "put", ["t", "", "large", pack(large)])[:2] == [2, 0]
    assert server.table("t")["k"] == {"a": 1}
    assert server.table("t")["large"] == large
