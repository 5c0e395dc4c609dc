"""The lifespan of a real Starlette application: a node for as long as it serves."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from iroh_gossip_discovery import BindError, Config, GossipDiscovery, NotRunningError
from iroh_gossip_discovery.blocking import GossipDiscovery as BlockingDiscovery
from iroh_gossip_discovery.contrib.starlette import lifespan

CONFIG = Config.local()


async def ticket(request: Request) -> JSONResponse:
    discovery: GossipDiscovery = request.state.discovery
    return JSONResponse({"ticket": discovery.ticket})


class Maker:
    """Makes nodes, and keeps them."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.made: list[GossipDiscovery] = []
        self.config = config

    def __call__(self) -> GossipDiscovery:
        self.made.append(GossipDiscovery("web", "fleet", config=self.config))
        return self.made[-1]


def application(make: Maker) -> Starlette:
    return Starlette(routes=[Route("/ticket", ticket)], lifespan=lifespan(make))


def test_a_node_runs_while_the_application_serves() -> None:
    make = Maker()
    app = application(make)
    assert not make.made
    for life in (1, 2):
        with TestClient(app) as client:
            said = client.get("/ticket").json()["ticket"]
            with BlockingDiscovery("other", "fleet", bootstrap=[said], config=CONFIG) as other:
                (peer,) = other.wait_for_peers(1, timeout=30).values()
            assert peer.id == make.made[-1].id
        assert len(make.made) == life
        with pytest.raises(NotRunningError, match="closed"):
            _ = make.made[-1].id


def test_an_application_whose_node_cannot_start_does_not_serve() -> None:
    make = Maker(Config.local(bind=["192.0.2.1:0"]))  # an address of nobody
    with pytest.raises(BindError), TestClient(application(make)):
        pass


def test_a_lifespan_refuses_a_factory_that_makes_no_node() -> None:
    with pytest.raises(TypeError, match="make must be callable, not str"):
        lifespan("web")  # type: ignore[arg-type]  # the point
    app = Starlette(lifespan=lifespan(lambda: "web"))  # type: ignore[arg-type,return-value]  # the point
    with (
        pytest.raises(TypeError, match=r"make\(\) must be GossipDiscovery, not str"),
        TestClient(app),
    ):
        pass
