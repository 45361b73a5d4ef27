//! XDP at uplinks: attached where it is wanted and possible, and said why not where it is not. Traffic flows without it as well, so
//! nothing that goes wrong here is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use tracing::{info, warn};

use super::attach::Place;
use super::{BpfError, Hooks, ethtool, links};
use crate::xdp::{Device, Xdp, ask_again_after, is_taken, refusal};

/// The program.
pub(super) const PROGRAM: &str = "xdp_uplink";

/// The one in its place that leaves every packet to the programs behind.
pub(super) const PASS: &str = "xdp_pass";

/// What is said of one that was not looked at yet.
const NEW: &str = "it has not been looked at yet";

/// An uplink with Ethernet headers, as far as XDP is concerned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct XdpUplink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MTU: drivers refuse what does not fit one buffer.
    pub mtu: u32,
    /// Whether a VLAN device stands on it.
    pub has_vlans: bool,
}

/// How it is with an uplink.
#[derive(Debug)]
struct State {
    uplink: XdpUplink,
    /// Why XDP is not attached; nothing if it is.
    obstacle: Option<String>,
    /// That the driver was asked and refused.
    refused: Option<Refused>,
}

/// Of a driver that refused the program.
#[derive(Debug)]
struct Refused {
    /// When it was asked last.
    at: Instant,
    /// How often it was asked.
    times: u32,
    /// Whether somebody else's program is there.
    is_taken: bool,
    /// What it said of itself.
    driver: ethtool::Driver,
}

impl Refused {
    /// A driver that has just refused, asked so often.
    fn now(error: &BpfError, times: u32, driver: ethtool::Driver) -> Self {
        let is_taken = matches!(error, BpfError::Attach { source, .. } if is_taken(source.raw_os_error()));
        Self { at: Instant::now(), times, is_taken, driver }
    }
}

/// What is set, and how it is with each uplink.
#[derive(Debug, Default)]
pub(super) struct AtUplinks {
    setting: Xdp,
    /// By index.
    states: BTreeMap<u32, State>,
    /// Whether what an agent before has left was looked through.
    begun: bool,
}

impl Hooks {
    /// The same with XDP as it is set.
    #[must_use]
    pub fn with_xdp(mut self, setting: Xdp) -> Self {
        self.xdp.setting = setting;
        self
    }

    /// Has XDP at these uplinks where it can be, and at no others.
    pub fn set_xdp_uplinks(&mut self, uplinks: Vec<XdpUplink>) {
        let gone = self.xdp.states.values().filter(|state| !uplinks.contains(&state.uplink));
        let gone: Vec<_> = gone.map(|state| state.uplink.clone()).collect();
        for uplink in gone {
            // One that has another name, or a VLAN device, keeps what it has until that is looked at.
            if !uplinks.iter().any(|other| other.ifindex == uplink.ifindex) {
                self.detach_xdp(&uplink);
            }
            self.xdp.states.remove(&uplink.ifindex);
        }
        for uplink in uplinks {
            let state = || State { uplink: uplink.clone(), obstacle: Some(NEW.to_owned()), refused: None };
            self.xdp.states.entry(uplink.ifindex).or_insert_with(state);
        }
        self.look_at_xdp();
    }

    /// What is said of each uplink: its name, and why XDP is not there, if it is not.
    #[must_use]
    pub fn xdp(&self) -> Vec<(String, Option<String>)> {
        self.xdp.states.values().map(|state| (state.uplink.name.clone(), state.obstacle.clone())).collect()
    }

    /// Whether XDP was asked for by name.
    #[must_use]
    pub fn wants_xdp(&self) -> bool {
        self.xdp.setting == Xdp::Native
    }

    /// Attaches and detaches where something has changed: a driver's settings, a VLAN device, somebody else's program.
    pub(super) fn look_at_xdp(&mut self) {
        let mut states = std::mem::take(&mut self.xdp.states);
        for (ifindex, state) in &mut states {
            let before = state.obstacle.clone();
            self.look_at_xdp_of(*ifindex, state);
            let uplink = &state.uplink.name;
            match (&before, &state.obstacle) {
                (Some(_), None) => info!(uplink, "XDP attached"),
                (before, Some(reason)) if before.as_ref() != Some(reason) => info!(uplink, reason, "no XDP"),
                _ => {}
            }
        }
        self.xdp.states = states;
    }

    fn look_at_xdp_of(&mut self, ifindex: u32, state: &mut State) {
        let place = Place::Xdp { ifindex };
        let uplink = &state.uplink;
        let driver = match ethtool::driver(&uplink.name) {
            Ok(driver) => driver,
            // What can't be asked is left as it is: the device may have gone.
            Err(error) => {
                if state.obstacle.as_deref() == Some(NEW) {
                    state.obstacle = Some(format!("its driver can't be asked: {error}"));
                }
                return;
            }
        };
        let device = Device {
            driver: &driver.name,
            has_bus: !driver.bus.is_empty(),
            strips_vlans: driver.strips_vlans,
            filters_vlans: driver.filters_vlans,
            has_vlans: uplink.has_vlans,
        };
        if let Some(obstacle) = self.xdp.setting.obstacle(&device) {
            self.detach_xdp(uplink);
            (state.obstacle, state.refused) = (Some(obstacle), None);
            return;
        }
        let is_ours = self.hooks.get(&place).is_some_and(|hook| hook.target == uplink.name && hook.link.is_some());
        if is_ours {
            (state.obstacle, state.refused) = (None, None);
            return;
        }
        let before = state.refused.take().filter(|refused| refused.driver == driver);
        let times = before.as_ref().map_or(0, |refused| refused.times);
        if let Some(refused) = before.filter(|r| r.at.elapsed() < ask_again_after(r.times, r.is_taken)) {
            state.refused = Some(refused);
            return;
        }
        self.follow_name(uplink);
        self.claim(place, PROGRAM, &uplink.name);
        match self.attach(place) {
            Ok(()) => state.obstacle = None,
            Err(error) => {
                self.hooks.remove(&place);
                (state.obstacle, state.refused) = (Some(why(&error)), Some(Refused::now(&error, times + 1, driver)));
            }
        }
    }

    /// Has the link at an interface that was given another name pinned under that.
    fn follow_name(&self, uplink: &XdpUplink) {
        let now = self.pins.xdp_link(&uplink.name);
        let names = self.pins.links().unwrap_or_default();
        let is_its = |pin: &PathBuf| links::is_xdp(pin) && links::interface(pin) == Some(uplink.ifindex);
        if let Some(before) = names.iter().map(|name| self.pins.link(name)).find(is_its).filter(|pin| *pin != now)
            && let Err(error) = std::fs::rename(&before, &now)
        {
            warn!(uplink = uplink.name, pin = %before.display(), %error, "can't give the pin the new name of its interface");
        }
    }

    /// Takes note that XDP was lost at an uplink and can't be put back.
    pub(super) fn lost_xdp(&mut self, ifindex: u32, error: &BpfError) {
        self.hooks.remove(&Place::Xdp { ifindex });
        if let Some(state) = self.xdp.states.get_mut(&ifindex) {
            warn!(uplink = state.uplink.name, %error, "XDP was removed and can't be put back: traffic takes the slower way");
            let driver = ethtool::driver(&state.uplink.name).ok();
            (state.obstacle, state.refused) = (Some(why(error)), driver.map(|driver| Refused::now(error, 1, driver)));
        }
    }

    fn detach_xdp(&mut self, uplink: &XdpUplink) {
        let place = Place::Xdp { ifindex: uplink.ifindex };
        if self.hooks.get(&place).is_some_and(|hook| hook.target == uplink.name) {
            self.hooks.remove(&place);
        }
        // The hook is forgotten where the interface had another name for a moment.
        self.remove_xdp(&uplink.name);
    }

    /// Removes links of an agent before at what is no uplink any more, or gets no XDP now. Once: to be called as soon as all uplinks
    /// are known, since a driver that loses XDP and gets it again may lose packets for seconds.
    pub fn detach_other_xdp(&mut self) {
        if std::mem::replace(&mut self.xdp.begun, true) {
            return;
        }
        let attached = self.hooks.iter().filter(|(place, _)| matches!(place, Place::Xdp { .. }));
        let kept: BTreeSet<_> = attached.map(|(_, hook)| self.pins.xdp_link(&hook.target)).collect();
        let names = self.pins.links().inspect_err(|error| warn!(%error, "can't look for links of a previous agent"));
        for pin in names.unwrap_or_default().iter().map(|name| self.pins.link(name)) {
            if !kept.contains(&pin) && links::is_xdp(&pin) {
                let link = pin.display();
                match links::remove(&pin) {
                    Ok(()) => info!(%link, "XDP detached"),
                    Err(error) => warn!(%link, %error, "XDP can't be detached"),
                }
            }
        }
    }

    fn remove_xdp(&self, name: &str) {
        let pin = self.pins.xdp_link(name);
        match links::remove(&pin) {
            Ok(()) => info!(uplink = name, "XDP detached"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(uplink = name, %error, "XDP can't be detached"),
        }
    }
}

fn why(error: &BpfError) -> String {
    match error {
        BpfError::Attach { source, .. } => refusal(source.raw_os_error(), &source.to_string()),
        other => other.to_string(),
    }
}
