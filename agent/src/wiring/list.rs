//! Lists of devices and addresses, of one moment.
//!
//! The kernel gives a long list in parts. If something comes or goes in between, the next part may leave out what was there
//! all the time, and says so (`nl_dump_check_consistent` in include/net/netlink.h). An uplink that is left out would lose its
//! programs.

use std::time::Duration;

use futures::StreamExt;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use tokio::time::sleep;

use super::{Netlink, WiringError};

/// How often a list is asked for that changes meanwhile, and how long it is left to settle: a node that starts has many devices
/// that come.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(5);

impl Netlink {
    /// Every device.
    pub(super) async fn list_links(&self) -> Result<Vec<LinkMessage>, WiringError> {
        self.list("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .await
    }

    /// Every address.
    pub(super) async fn list_addresses(&self) -> Result<Vec<AddressMessage>, WiringError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.list("list addresses", request, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
        .await
    }

    async fn list<T>(
        &self,
        what: &'static str,
        request: RouteNetlinkMessage,
        of: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, WiringError> {
        let refused = |e| WiringError::kernel(what, &e);
        for tries in 0..TRIES {
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let answers = self.handle.clone().request(message).map_err(refused)?;
            if let Some(list) = whole(answers.collect().await, &of).map_err(refused)? {
                return Ok(list);
            }
            sleep(PAUSE * tries).await;
        }
        Err(WiringError::Changing(what))
    }
}

/// What is in the answers. Nothing if the list changed while the kernel gave it.
fn whole<T>(
    answers: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    of: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Option<Vec<T>>, rtnetlink::Error> {
    let mut list = Vec::with_capacity(answers.len());
    for answer in answers {
        if answer.header.flags & NLM_F_DUMP_INTR != 0 {
            return Ok(None);
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => list.extend(of(message)),
            NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
            _ => {}
        }
    }
    Ok(Some(list))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::ErrorMessage;

    use super::*;

    fn link(index: u32) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        NetlinkMessage::from(RouteNetlinkMessage::NewLink(link))
    }

    fn indices(answers: Vec<NetlinkMessage<RouteNetlinkMessage>>) -> Result<Option<Vec<u32>>, rtnetlink::Error> {
        whole(answers, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
            _ => None,
        })
    }

    #[test]
    fn a_list_that_changed_while_the_kernel_gave_it_is_none() {
        assert_eq!(indices(vec![link(2), link(3)]).unwrap(), Some(vec![2, 3]));
        let mut later = link(4);
        later.header.flags |= NLM_F_DUMP_INTR;
        assert_eq!(indices(vec![link(2), later, link(5)]).unwrap(), None);
        let mut refused = link(2);
        refused.payload = NetlinkPayload::Error(ErrorMessage::default());
        assert!(indices(vec![refused]).is_err());
    }
}
