"""TLS to Redis and PostgreSQL: accepted connections, and the errors of rejected ones."""

from collections.abc import Callable

import pytest

from db.database import open_database
from db.errors import BrokerError, DatabaseError, SettingsError
from producer.queue.broker import check, create_app, depth
from producer.queue.chunks import sending
from tests.fixtures.servers import RedisServer
from tests.fixtures.tls import HOST, Certificates, tls_before


def test_chunks_travel_over_tls_to_a_redis_whose_certificate_is_right(
    redis_server: RedisServer, certificates: Certificates
) -> None:
    with tls_before(redis_server.port, certificates.server) as port:
        app = create_app(f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificates.authority}", 1)
        with sending(app, 1, max_waiting=10) as sender:
            sender.send([1, 2, 3])
        assert depth(app, 1).waiting == 1
        app.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rediss://localhost:{port}/0", "certificate that is not accepted: .*ssl_ca_certs=/path"),
        (
            "rediss://localhost:{port}/0?ssl_ca_certs={stranger}",
            "certificate that is not accepted: .*ssl_ca_certs=/path",
        ),
        ("rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}", "not valid for '127.0.0.1'.* use the host name of"),
        (
            "rediss://localhost:{port}/0?ssl_ca_certs=/nowhere.pem",
            "cannot be reached: .* Check the paths of files in TAGONCE_BROKER_URL",
        ),
        ("redis://localhost:{port}/0", "begins with rediss:// if it speaks TLS"),
    ],
    ids=["authority unknown", "another authority", "another host", "no such file", "no TLS"],
)
def test_a_redis_that_cannot_be_trusted_is_not_spoken_to(
    redis_server: RedisServer, certificates: Certificates, url: str, said: str
) -> None:
    """The error gives advice. Each case has its own port: kombu's pools do not distinguish certificates."""
    with tls_before(redis_server.port, certificates.server) as port:
        app = create_app(url.format(port=port, authority=certificates.authority, stranger=certificates.stranger), 1)
        with pytest.raises(BrokerError, match=said):
            check(app)
        app.close()


@pytest.fixture
def over_tls(postgres: str, postgres_url: str) -> Callable[[int, str], str]:
    """The URL of the database over the port with TLS, for a host."""
    name = postgres_url.partition("@/")[2].partition("?")[0]
    return lambda port, host: f"postgresql://postgres:s3cret@{host}:{port}/{name}"


def test_tables_are_made_over_tls_in_a_postgresql_whose_certificate_is_right(
    postgres: str, over_tls: Callable[[int, str], str], certificates: Certificates
) -> None:
    socket = f"{postgres.partition('host=')[2]}/.s.PGSQL.5432"
    with tls_before(socket, certificates.server, asked_for=True) as port:
        url = f"{over_tls(port, HOST)}?sslmode=verify-full&sslrootcert={certificates.authority}"
        database = open_database(url)
        with database.read() as connection:
            assert connection.exec_driver_sql("select count(*) from images").scalar() == 0
        database.close()


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem", "does not exist.* sslrootcert=/path"),
        ("localhost", "sslmode=verify-full&sslrootcert={stranger}", "certificate verify failed.* sslrootcert=/path"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={authority}", "not match host name.* write the host as"),
    ],
    ids=["no such file", "another authority", "another host"],
)
def test_a_postgresql_that_cannot_be_trusted_is_not_spoken_to(
    postgres: str, over_tls: Callable[[int, str], str], certificates: Certificates, host: str, options: str, said: str
) -> None:
    socket = f"{postgres.partition('host=')[2]}/.s.PGSQL.5432"
    with tls_before(socket, certificates.server, asked_for=True) as port:
        tail = options.format(authority=certificates.authority, stranger=certificates.stranger)
        with pytest.raises(DatabaseError, match=said) as caught:
            open_database(f"{over_tls(port, host)}?{tail}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tagonce@127.0.0.1:1/db?password=s3cret",
        "postgresql://tagonce:s3cret@127.0.0.1:1/db?sslpassword=s3cret",
        "postgresql://tagonce@host:s3cret/db",
        "postgresql:/tagonce:s3cret@host/db",
    ],
)
def test_a_password_in_an_odd_place_of_the_url_is_not_shown_either(url: str) -> None:
    with pytest.raises((DatabaseError, SettingsError)) as caught:
        open_database(url)
    assert "s3cret" not in str(caught.value)
