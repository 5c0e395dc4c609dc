//! `Node`: a running node, as the Python package sees it.

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh_gossip_discovery::{self as core, proto::EndpointId};
use pyo3::{prelude::*, types::PyString};

use crate::{
    bootstrap::Bootstrap,
    bridge::{self, Bridge},
    error, extract,
    fork::AtHome,
    issuer, message, metrics,
    peer::Peer,
    profile::profile,
    records::Records,
    selection::Selection,
    settings::Settings,
    status, stream,
    subscription::{MessageSubscription, Serving, Subscription},
};

/// A node in one topic: an endpoint with its first topic, or another topic of such an endpoint.
#[pyclass(frozen, module = "iroh_gossip_discovery._core")]
pub(crate) struct Node(AtHome<Inner>);

#[derive(Clone)]
struct Inner {
    running: Arc<core::RunningNode>,
    /// The topic, if it is not the first one of the endpoint.
    other: Option<core::Swarm>,
}

impl Node {
    pub(crate) fn new(node: core::RunningNode) -> Self {
        Self(AtHome::new(Inner { running: Arc::new(node), other: None }))
    }

    fn swarm(&self) -> PyResult<&core::Swarm> {
        let inner = self.0.get()?;
        Ok(inner.other.as_ref().unwrap_or(&inner.running.swarm))
    }

    pub(crate) fn discovery(&self) -> PyResult<&core::Discovery> {
        Ok(&self.0.get()?.running.discovery)
    }
}

impl Inner {
    /// Closes the endpoint, or leaves the other topic.
    async fn close(&self) {
        match &self.other {
            Some(swarm) => swarm.leave().await,
            None => self.running.close().await,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The node may not be closed, after a cancelled start or a forgotten close. Its links are
        // closed all the same. That happens in the runtime, because what is dropped here may spawn
        // tasks.
        if let Some(node) = self.0.take() {
            bridge::spawn_detached(async move { node.close().await });
        }
    }
}

#[pymethods]
impl Node {
    /// The endpoint id: 64 lower-case hex digits.
    #[getter]
    fn id(&self) -> PyResult<String> {
        Ok(self.swarm()?.id().to_string())
    }

    /// How to reach this node now, as one string.
    #[getter]
    fn ticket(&self) -> PyResult<String> {
        Ok(self.swarm()?.ticket().to_string())
    }

    /// This node as it announces itself.
    fn me(&self) -> PyResult<Peer> {
        Ok(self.swarm()?.me().into())
    }

    /// Returns the number of peers in the book.
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.swarm()?.book().len())
    }

    /// Returns the number of nodes in a selection.
    fn count(&self, py: Python<'_>, selection: &Selection) -> PyResult<usize> {
        Ok(selection.look(self.swarm()?).count(py))
    }

    /// Returns the node of this id, if it is in the selection.
    fn find(&self, selection: &Selection, id: &Bound<'_, PyString>) -> PyResult<Option<Peer>> {
        let swarm = self.swarm()?;
        // A lone surrogate is in no id.
        let Ok(id) = id.to_cow() else { return Ok(None) };
        let Ok(id) = EndpointId::from_str(&id) else { return Ok(None) };
        Ok(selection.look(swarm).find(&id).map(Peer::from))
    }

    /// Returns the state of a peer as `class(**fields)`; `None` if the peer is not in the book.
    fn status<'py>(
        &self,
        py: Python<'py>,
        class: &Bound<'py, PyAny>,
        peer: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let peer = message::peer_id(peer)?;
        let status = self.swarm()?.status(&peer);
        status.map(|status| class.call((), Some(&status::fields(py, &status)?))).transpose()
    }

    /// Returns the nodes that are in a selection now.
    fn select(&self, selection: &Selection) -> PyResult<Records> {
        Ok(selection.look(self.swarm()?))
    }

    /// Returns the node's counters as `class(**fields)`.
    fn metrics<'py>(
        &self,
        py: Python<'py>,
        class: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        class.call((), Some(&metrics::fields(py, &self.swarm()?.metrics())?))
    }

    /// The UDP addresses that are bound: host and port of each.
    fn bound(&self) -> PyResult<Vec<(String, u16)>> {
        let bound = self.0.get()?.running.endpoint.bound_sockets().into_iter();
        Ok(bound.map(|address| (address.ip().to_string(), address.port())).collect())
    }

    /// Returns the problems that keep the node from others: source, text, start and count of each.
    fn problems(&self) -> PyResult<Vec<(String, String, f64, u64)>> {
        let seconds = |since: SystemTime| since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let problems = self.discovery()?.problems().into_iter().map(|problem| {
            let since = seconds(problem.since).as_secs_f64();
            (problem.source, problem.what, since, problem.count)
        });
        Ok(problems.collect())
    }

    /// Notes that a source of peers fails, and why, or that it works.
    #[pyo3(signature = (source, what=None))]
    fn report(&self, source: &str, what: Option<&str>) -> PyResult<()> {
        self.discovery()?.report(source, what);
        Ok(())
    }

    /// The ids on the deny list.
    fn denied(&self) -> PyResult<BTreeSet<String>> {
        Ok(self.discovery()?.denied().iter().map(EndpointId::to_string).collect())
    }

    /// The ids on the allow list; `None` without one.
    fn allowed(&self) -> PyResult<Option<BTreeSet<String>>> {
        let allowed = self.discovery()?.allowed();
        Ok(allowed.map(|ids| ids.iter().map(EndpointId::to_string).collect()))
    }

    /// Puts a peer on the deny list, or takes it off.
    fn deny<'py>(
        &self,
        py: Python<'py>,
        peer: &Bound<'py, PyAny>,
        denied: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (peer, discovery) = (message::peer_id(peer)?, self.discovery()?.clone());
        Bridge::get(py)?.future(py, async move {
            if denied { discovery.deny(peer).await } else { discovery.undeny(peer).await }
        })
    }

    /// Puts a peer on the allow list, or takes it off.
    fn allow<'py>(
        &self,
        py: Python<'py>,
        peer: &Bound<'py, PyAny>,
        allowed: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (peer, discovery) = (message::peer_id(peer)?, self.discovery()?.clone());
        Bridge::get(py)?.future(py, async move {
            if allowed { discovery.allow(peer).await } else { discovery.disallow(peer).await }
        })
    }

    /// Returns the peers in the book, with a subscription to every event after that.
    fn subscribe(&self) -> PyResult<(Records, Subscription)> {
        let (book, events) = self.swarm()?.subscribe();
        Ok((Records::new(Arc::default(), book, None), Subscription::new(events)))
    }

    /// The ids that issuers keep out.
    fn revoked(&self) -> PyResult<BTreeSet<String>> {
        Ok(self.discovery()?.revoked().iter().map(EndpointId::to_string).collect())
    }

    /// Keeps an id out of the swarm, by the word of an issuer.
    fn revoke<'py>(
        &self,
        py: Python<'py>,
        revocation: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (revocation, discovery) = (issuer::revocation(revocation)?, self.discovery()?.clone());
        Bridge::get(py)?.future(py, async move { discovery.revoke(revocation).await })
    }

    /// Replaces the invitation of this node.
    fn renew<'py>(
        &self,
        py: Python<'py>,
        invitation: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (invitation, discovery) = (issuer::invitation(invitation)?, self.discovery()?.clone());
        Bridge::get(py)?.future(py, async move { discovery.renew(invitation).await })
    }

    /// Subscribes to every message of a channel, or of none, from now on.
    #[pyo3(signature = (channel=None))]
    fn messages(&self, channel: Option<&Bound<'_, PyAny>>) -> PyResult<MessageSubscription> {
        let channel = message::channel_of(channel)?;
        Ok(MessageSubscription::new(self.swarm()?.in_channel(channel).messages()))
    }

    /// Waits for the first contact. The result is the member that the book was compared with, or
    /// the peers that did not answer, with the reasons. Cancelling the future ends the wait.
    fn joined<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.abortable(py, async move { swarm.joined().await.map(status::contact) })
    }

    /// Waits until the books agree and the own one has not changed for `quiet` seconds. Given up if
    /// the future is cancelled.
    fn settled<'py>(&self, py: Python<'py>, quiet: f64) -> PyResult<Bound<'py, PyAny>> {
        let quiet = Duration::try_from_secs_f64(quiet)
            .map_err(|error| error::invalid(py, "quiet", &error.to_string()))?;
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.abortable(py, async move {
            let book = swarm.settled(quiet).await?;
            Ok::<_, core::Error>(Records::new(Arc::default(), book, None))
        })
    }

    /// Sends a message to one peer. Cancelling the future ends the attempt.
    #[pyo3(signature = (peer, data, channel=None))]
    fn send<'py>(
        &self,
        py: Python<'py>,
        peer: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
        channel: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (peer, data) = (message::peer_id(peer)?, extract::bytes("data", data)?);
        let channel = self.swarm()?.in_channel(message::channel_of(channel)?);
        let work = async move { channel.send(peer, data).await.map(message::receipt) };
        Bridge::get(py)?.abortable(py, work)
    }

    /// Sends a message to all members. Cancelling the future before the message has its turn ends
    /// the attempt.
    #[pyo3(signature = (data, channel=None))]
    fn broadcast<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        channel: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = extract::bytes("data", data)?;
        let channel = self.swarm()?.in_channel(message::channel_of(channel)?);
        Bridge::get(py)?.abortable(py, async move { channel.broadcast(data).await })
    }

    /// Opens a stream of a protocol. Cancelling the future ends the attempt.
    fn open_stream<'py>(
        &self,
        py: Python<'py>,
        peer: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let peer = message::peer_id(peer)?;
        let protocol = extract::bytes_or_text("protocol", protocol)?;
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.abortable(py, async move {
            let (reader, writer) = swarm.open_stream(peer, protocol).await?;
            Ok::<_, core::Error>(stream::halves(reader, writer))
        })
    }

    /// Serves a protocol until the returned value is dropped.
    fn serve(&self, py: Python<'_>, protocol: &Bound<'_, PyAny>) -> PyResult<Serving> {
        let protocol = extract::bytes_or_text("protocol", protocol)?;
        let serving = self.swarm()?.serve(protocol).map_err(|error| error::raise(py, error))?;
        Ok(Serving::new(serving))
    }

    /// Announces a new name, metadata, protocols and readiness.
    fn set_profile<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        metadata: &Bound<'py, PyAny>,
        protocols: &Bound<'py, PyAny>,
        readiness: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut profile = profile(name, metadata, protocols)?;
        profile.readiness = extract::readiness(readiness)?;
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.future(py, async move { swarm.set_profile(profile).await })
    }

    /// Adds bootstrap peers.
    fn add_bootstrap<'py>(
        &self,
        py: Python<'py>,
        peers: Vec<Bound<'py, Bootstrap>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let peers = peers.iter().map(|peer| peer.get().0.clone()).collect();
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.future(py, async move { swarm.add_bootstrap(peers).await })
    }

    /// Leaves the topic, which ends its subscriptions.
    fn leave<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let swarm = self.swarm()?.clone();
        Bridge::get(py)?.future(py, async move {
            swarm.leave().await;
            Ok(())
        })
    }

    /// Joins another topic on the same endpoint, with the topic and profile of the settings.
    fn join<'py>(
        &self,
        py: Python<'py>,
        settings: &Settings,
        bootstrap: Vec<Bound<'py, Bootstrap>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let running = self.0.get()?.running.clone();
        let (topic, profile) = settings.topic_and_profile();
        let bootstrap: Vec<_> = bootstrap.iter().map(|peer| peer.get().0.clone()).collect();
        Bridge::get(py)?.future(py, async move {
            let options = core::JoinOptions::new(profile).bootstrap(bootstrap);
            let swarm = running.discovery.join(topic, options).await?;
            Ok::<_, core::Error>(Self(AtHome::new(Inner { running, other: Some(swarm) })))
        })
    }

    /// Leaves the topic; if it is the first one of the endpoint, also closes the endpoint.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let node = self.0.get()?.clone();
        Bridge::get(py)?.future(py, async move {
            node.close().await;
            Ok(())
        })
    }
}
