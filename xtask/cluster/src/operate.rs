//! Ending and starting parts of a cluster that is up.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, pod_cidrs, wait};
use crate::control_plane::API_SERVER;
use crate::place::FABRIC;
use crate::service::Service;
use crate::{fabric, peer, teardown};

impl Cluster {
    /// Has a place run a program, from now on and after every restart.
    pub fn run_service(&self, place: &str, service: &Service) -> Result<()> {
        self.place(place).board().put(service)
    }

    /// Ends a program of a place for good.
    pub fn remove_service(&self, place: &str, name: &str) -> Result<()> {
        self.place(place).board().remove(name)
    }

    /// Ends the API server at once, as `kill -9` does, and keeps it away.
    pub fn stop_api_server(&self) -> Result<()> {
        self.place(FABRIC).board().hold(API_SERVER, true)?;
        wait(
            Duration::from_secs(10),
            || "the API server does not end".to_owned(),
            || Ok((!self.api_answers()?).then_some(())),
        )
    }

    /// Starts it again and waits until it answers.
    pub fn start_api_server(&self) -> Result<()> {
        self.place(FABRIC).board().hold(API_SERVER, false)?;
        self.wait_for_api(Duration::from_secs(60))
    }

    fn api_answers(&self) -> Result<bool> {
        let mut command = self.kubectl_command()?;
        let status = command.args(["get", "--raw=/readyz", "--request-timeout=2s"]).stdin(Stdio::null());
        Ok(status.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    pub(crate) fn wait_for_api(&self, time: Duration) -> Result<()> {
        let log = self.logs(FABRIC);
        wait(
            time,
            || format!("the API server is not ready: see {}", log.display()),
            || Ok(self.api_answers()?.then_some(())),
        )
    }

    /// Ends a node and makes it again, as a machine that starts anew: /run, bpffs and all processes are gone, /etc and /var
    /// are as they were.
    pub fn restart_node(&self, node: &str) -> Result<()> {
        let place = self.place(node);
        place.alive()?;
        teardown::end_node(&self.record, &place)?;
        self.launch(node)?;
        // The peer's routes are nobody's to make again but ours.
        if self.network() == peer::NETWORK { self.connect_pods(node) } else { Ok(()) }
    }

    /// Makes a place's namespaces and waits until its first process has mounted what it must.
    pub(crate) fn launch(&self, name: &str) -> Result<()> {
        let place = self.place(name);
        fs::create_dir_all(&place.path)?;
        let output = self.helper.command("launch", &self.home.path)?.arg(name).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "can't make {name}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        wait(
            Duration::from_secs(20),
            || format!("{name} is not ready: {}", place.last_words()),
            || {
                place.alive()?;
                Ok(place.ready().exists().then_some(()))
            },
        )
    }

    /// Waits until every node is known, with addresses for pods, and has the fabric reach those.
    pub(crate) fn wait_for_nodes(&self) -> Result<()> {
        let logs = self.logs("NODE");
        let fabric = self.place(FABRIC).alive()?;
        for (number, node) in self.spec().node_names() {
            let complaint = || format!("{node} did not register: see kubelet.log in {}", logs.display());
            let cidrs = wait(Duration::from_secs(60), complaint, || {
                let Ok(text) = self.kubectl(&["get", "node", &node, "--output=json", "--ignore-not-found"]) else {
                    return Ok(None);
                };
                Ok(pod_cidrs(&text))
            })?;
            fabric::route_to_pods(self.spec(), number, &cidrs, fabric.pid)?;
        }
        Ok(())
    }
}
