//! `fairlead uninstall --dry-run`: what would be taken away.

use std::fs;
use std::io;
use std::path::Path;

use super::chain::plugin_types;
use super::{PLUGIN, Removal, Step};
use crate::bpf::PinDir;
use crate::wiring::{Netlink, PodLinks, Sysctls};

/// What [`super::uninstall()`] would take away now, in the same steps and order, and nothing is changed. A step that could not
/// be looked at failed.
pub async fn survey(removal: &Removal) -> Vec<Step> {
    let Removal { run_dir, bpffs, proc_sys, cni_bin_dir, conflist } = removal;
    let others = plugin_types(&fs::read(conflist).unwrap_or_default()).into_iter().filter(|kind| kind != PLUGIN);
    let others = others.collect::<Vec<_>>().join(", ");
    let found =
        file(conflist).map(|found| if others.is_empty() { found } else { format!("{found}, with {others} in it") });
    let mut steps = vec![Step::new("CNI configuration", found)];
    match Netlink::open() {
        Ok(netlink) => steps.extend(wired(netlink).await),
        Err(error) => steps.push(Step::new("pod interfaces and routes", Err(error))),
    }
    let pins = PinDir::count(bpffs).map(|pins| {
        let others = PinDir::others_below(bpffs.parent().unwrap_or(bpffs)).map(|more| format!("; {more}"));
        format!("{}{}", some(pins, "pin"), others.unwrap_or_default())
    });
    steps.push(Step::new("programs and tables", pins));
    let changed = Sysctls::new(proc_sys, run_dir).changed();
    let changed = changed.map(|keys| match keys.as_slice() {
        [] => "nothing to restore".to_owned(),
        keys => format!("would restore {}", keys.join(", ")),
    });
    steps.push(Step::new("kernel settings", changed));
    steps.push(Step::new("CNI plugin", file(&cni_bin_dir.join(PLUGIN))));
    steps.push(Step::new("run directory", file(run_dir)));
    steps
}

async fn wired(netlink: Netlink) -> Vec<Step> {
    let routes = netlink.node_routes().await.map(|routes| some(routes.len(), "route"));
    let neighbours = netlink.managed_neighbours().await.map(|count| match count {
        0 => "none is managed".to_owned(),
        count => format!("would stop managing {count}"),
    });
    let overlay = netlink.has_overlay().await;
    let overlay = overlay.map(|there| if there { "would remove it" } else { "not present" }.to_owned());
    let services = netlink.has_svc().await;
    let services = services.map(|there| if there { "would remove it" } else { "not present" }.to_owned());
    let links = PodLinks::new(netlink).list().await;
    let links = links.map(|links| {
        let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        let named = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        some(names.len(), "link") + &named
    });
    vec![
        Step::new("routes to other nodes' pods and to Services", routes),
        Step::new("neighbours", neighbours),
        Step::new("VXLAN device", overlay),
        Step::new("device for Services", services),
        Step::new("pod interfaces", links),
    ]
}

fn some(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("would remove 1 {what}"),
        _ => format!("would remove {number} {what}s"),
    }
}

fn file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(format!("would remove {shown}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(format!("not present: {shown}")),
        Err(error) => Err(format!("can't look at {shown}: {error}")),
    }
}
