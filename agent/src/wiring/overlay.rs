//! The tunnel's device: one VXLAN device for all other nodes, which learns nothing and asks nobody. Its programs say for
//! each packet where it goes and check where it came from; so it is not up before they are attached.

use std::net::Ipv4Addr;

use fairlead_datapath::overlay::RECEIVER;
use futures::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::{Netlink, WiringError};

pub use fairlead_datapath::overlay::IFINDEX;

/// Its name.
pub const NAME: &str = "fairlead.vxlan";

/// An address that nobody can send to or from, since it is of loopback's range. Of a device without any the kernel takes only what
/// it would itself send there, however loose the check of return paths is (`__fib_validate_source` in
/// net/ipv4/fib_frontend.c), and nodes may not agree on the way between them.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 169, 1, 2);

/// What earlier releases had in its place. Pods could send to it, and so to what listens at every address of the node.
const EARLIER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// What can be done when there can't be one.
const REMEDY: &str = "this needs the kernel module vxlan and a UDP port that no other VXLAN device has: see \
    --vxlan-port, or disable the tunnel with --tunnel never";

/// How the device was found, or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// There was none, or another; it has been made and is down.
    Made,
    /// It is as it should be, but down.
    Down,
    /// It is as it should be.
    Up,
}

impl Netlink {
    /// Makes the device be there, with this UDP port and this MTU. A new one stays down: [`Netlink::raise_overlay`]. Says how it
    /// was found, and what of one that was there had to be put right.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn keep_overlay(&self, port: u16, mtu: u32) -> Result<(Overlay, Vec<String>), WiringError> {
        match self.overlay().await? {
            Some(link) if is_right(&link, port) => {
                let mut mended = Vec::new();
                if link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(1..))) {
                    self.change_overlay("remove from another device", |message| {
                        message.attributes.push(LinkAttribute::Controller(0));
                    })
                    .await?;
                    mended.push(format!("the device {NAME} removed from another device"));
                }
                if self.name_overlay().await? {
                    self.forget_earlier_address().await?;
                    mended.push(format!("the address {ADDRESS} of {NAME}"));
                }
                if !link.attributes.contains(&LinkAttribute::Mtu(mtu)) {
                    self.change_overlay("set the MTU of", |message| {
                        message.attributes.push(LinkAttribute::Mtu(mtu));
                    })
                    .await?;
                }
                let up = link.header.flags.contains(LinkFlags::Up);
                return Ok((if up { Overlay::Up } else { Overlay::Down }, mended));
            }
            Some(link) => self.delete_overlay(link.header.index).await?,
            None => {}
        }
        let made = self.handle.link().add(device(port, mtu)).execute().await;
        made.map_err(|e| WiringError::kernel(format!("create {NAME} ({REMEDY})"), &e))?;
        // Without an IPv6 address of its own it has nothing to say by itself. A kernel without IPv6 knows no such thing.
        let silent = self.change_overlay("silence", |message| {
            let spec = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
            message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(spec)]));
        });
        match silent.await {
            Err(error) if error.errno() != Some(Errno::EAFNOSUPPORT as i32) => return Err(error),
            _ => {}
        }
        self.name_overlay().await?;
        Ok((Overlay::Made, Vec::new()))
    }

    /// Gives it its address. Says whether it had none.
    async fn name_overlay(&self) -> Result<bool, WiringError> {
        let mut request = self.handle.address().add(IFINDEX, ADDRESS.into(), 32);
        // Nor does the kernel choose it for what leaves the node.
        request.message_mut().header.scope = AddressScope::Host;
        let named = request.execute().await;
        match named.map_err(|e| WiringError::kernel(format!("give {NAME} an address"), &e)) {
            Err(error) if error.errno() == Some(Errno::EEXIST as i32) => Ok(false),
            result => result.map(|()| true),
        }
    }

    async fn forget_earlier_address(&self) -> Result<(), WiringError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = IFINDEX;
        message.attributes.push(AddressAttribute::Local(EARLIER_ADDRESS.into()));
        let deleted = self.handle.address().del(message).execute().await;
        match deleted.map_err(|e| WiringError::kernel(format!("take the address {EARLIER_ADDRESS} off {NAME}"), &e)) {
            Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL as i32) => Ok(()),
            result => result,
        }
    }

    /// Sets it up, which is when it takes its port.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn raise_overlay(&self) -> Result<(), WiringError> {
        self.change_overlay(&format!("set up ({REMEDY})"), |message| {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        })
        .await
    }

    /// Removes it, if there is one. Says whether there was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_overlay(&self) -> Result<bool, WiringError> {
        match self.overlay().await? {
            Some(link) => self.delete_overlay(link.header.index).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Whether the device is there, or something in its place.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn has_overlay(&self) -> Result<bool, WiringError> {
        self.overlay().await.map(|link| link.is_some())
    }

    async fn overlay(&self) -> Result<Option<LinkMessage>, WiringError> {
        // Whatever has its name or its index is in its way.
        for request in
            [self.handle.link().get().match_name(NAME.to_owned()), self.handle.link().get().match_index(IFINDEX)]
        {
            let found: Result<Vec<LinkMessage>, _> = request.execute().try_collect().await;
            match found.map_err(|e| WiringError::kernel(format!("show {NAME}"), &e)) {
                Ok(links) if !links.is_empty() => return Ok(links.into_iter().next()),
                Err(error) if error.errno() != Some(Errno::ENODEV as i32) => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    async fn delete_overlay(&self, ifindex: u32) -> Result<(), WiringError> {
        match self.handle.link().del(ifindex).execute().await.map_err(|e| WiringError::kernel("delete a tunnel", &e)) {
            Err(error) if error.errno() == Some(Errno::ENODEV as i32) => Ok(()),
            result => result,
        }
    }

    async fn change_overlay(&self, what: &str, change: impl FnOnce(&mut LinkMessage)) -> Result<(), WiringError> {
        let mut message = LinkMessage::default();
        message.header.index = IFINDEX;
        change(&mut message);
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| WiringError::kernel(format!("{what} {NAME}"), &e))
    }
}

/// The device as it is to be made. It takes the other end of each packet from the packet's metadata, has the MAC that all
/// have, and asks for none (`IFF_NOARP`).
fn device(port: u16, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = IFINDEX;
    message.header.flags = LinkFlags::Noarp;
    message.header.change_mask = LinkFlags::Noarp;
    message.header.interface_family = AddressFamily::Unspec;
    let vxlan = vec![InfoVxlan::CollectMetadata(true), InfoVxlan::Learning(false), InfoVxlan::Port(port)];
    message.attributes = vec![
        LinkAttribute::IfName(NAME.to_owned()),
        LinkAttribute::Address(RECEIVER.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(vxlan))]),
    ];
    message
}

/// Whether a device is one that [`device`] made, and nobody has changed what matters.
fn is_right(link: &LinkMessage, port: u16) -> bool {
    let vxlan = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
            _ => None,
        }),
        _ => None,
    });
    let is = |wanted| vxlan.is_some_and(|data| data.contains(&wanted));
    link.header.index == IFINDEX
        && link.header.flags.contains(LinkFlags::Noarp)
        && link.attributes.contains(&LinkAttribute::IfName(NAME.to_owned()))
        && link.attributes.contains(&LinkAttribute::Address(RECEIVER.to_vec()))
        && is(InfoVxlan::CollectMetadata(true))
        && is(InfoVxlan::Port(port))
}
