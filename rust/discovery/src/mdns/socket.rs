//! One socket for each interface and family, so that it is known by which interface a packet came.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Longest packet (RFC 6762 §17), in bytes.
const MAX_PACKET: usize = 9000;

/// A socket on an interface. Dropping it ends its reader.
#[derive(Debug)]
pub(super) struct Port {
    socket: Arc<UdpSocket>,
    group: SocketAddr,
    heard: Arc<AtomicBool>,
    _reader: AbortOnDropHandle<()>,
}

impl Port {
    /// Opens a socket on the interface of this index, which has the address `ip`. It gives the
    /// packets that it receives to `packets`, and drops those that find no room there.
    pub(super) fn open(index: u32, ip: IpAddr, packets: mpsc::Sender<Vec<u8>>) -> io::Result<Self> {
        let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        let group = match ip {
            IpAddr::V4(v4) => {
                #[cfg(target_os = "linux")]
                socket.set_multicast_all_v4(false)?;
                socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
                socket.join_multicast_v4(&GROUP_V4, &v4)?;
                socket.set_multicast_if_v4(&v4)?;
                socket.set_multicast_loop_v4(true)?;
                socket.set_multicast_ttl_v4(255)?;
                SocketAddr::from((GROUP_V4, PORT))
            }
            IpAddr::V6(_) => {
                #[cfg(target_os = "linux")]
                socket.set_multicast_all_v6(false)?;
                socket.set_only_v6(true)?;
                socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
                socket.join_multicast_v6(&GROUP_V6, index)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_loop_v6(true)?;
                socket.set_multicast_hops_v6(255)?;
                SocketAddrV6::new(GROUP_V6, PORT, 0, index).into()
            }
        };
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let heard = Arc::default();
        let reader = tokio::spawn(hear(socket.clone(), index, Arc::clone(&heard), packets));
        Ok(Self { socket, group, heard, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Returns true if any packet arrived since this was called last.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Sends a packet to all hosts on the link. Never waits.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        self.socket.try_send_to(packet, self.group)
    }
}

async fn hear(
    socket: Arc<UdpSocket>,
    index: u32,
    heard: Arc<AtomicBool>,
    packets: mpsc::Sender<Vec<u8>>,
) {
    let mut buffer = vec![0; MAX_PACKET];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        // Linux gives an IPv6 socket the packets of all interfaces on which the group was joined.
        let elsewhere =
            matches!(from, SocketAddr::V6(v6) if v6.scope_id() != 0 && v6.scope_id() != index);
        if !elsewhere {
            heard.store(true, Ordering::Relaxed);
        }
        // A packet from another port does not come from a full mDNS responder (RFC 6762 §6).
        if from.port() == PORT && !packets.is_closed() {
            // A packet without room is dropped, because its sender repeats it.
            let _ = packets.try_send(buffer[..length].to_vec());
        }
    }
}
