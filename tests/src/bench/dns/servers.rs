//! The two servers, each a process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fairlead_cluster::KUBE_PROXY;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::unistd::{SysconfVar, sysconf};

use super::control::{Control, part};
use super::perf::{Mode, service_name};
use super::{SERVICES, upstream};

/// How long a server may take until it knows the cluster.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs. It ends with this.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    udp: SocketAddr,
    tls: SocketAddr,
}

/// kubeadm's Corefile, with what a server outside of the cluster needs besides.
fn corefile(address: &str, kubernetes: &str) -> String {
    format!(
        "{address} {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
{kubernetes}    }}
    prometheus :9153
    forward . {} {{
       max_concurrent 1000
    }}
    cache 30
    loop
    reload
    loadbalance
}}
",
        upstream::ADDRESS
    )
}

impl Server {
    /// fairlead-dns with kubeadm's Corefile as it is.
    pub(super) fn fairlead(control: &Control, program: &Path) -> Result<Self> {
        let [udp, tls, health, ready, metrics] = [2053, 2853, 2080, 2181, 2153].map(local);
        let file = control.dir().join("Corefile-fairlead");
        fs::write(&file, corefile(".:53", ""))?;
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let flags = [
            flag("kubeconfig", &control.kubeconfig().display()),
            flag("corefile", &file.display()),
            flag("listen", &udp),
            flag("tls-bind", &tls),
            flag("tls-cert", &control.certificate().display()),
            flag("tls-key", &control.key().display()),
            flag("health-bind", &health),
            flag("ready-bind", &ready),
            flag("metrics-bind", &metrics),
        ];
        let child = control.program("fairlead-dns", program, &flags)?;
        Ok(Self { name: "fairlead-dns", child, udp, tls })
    }

    /// CoreDNS with it, and once more over TLS.
    pub(super) fn coredns(control: &Control) -> Result<Self> {
        let [udp, tls] = [1053, 1853].map(local);
        let file = control.dir().join("Corefile-coredns");
        let kubeconfig = format!("       kubeconfig {} c\n", control.kubeconfig().display());
        let encrypted = corefile(&format!("tls://.:{}", tls.port()), &kubeconfig).replace("    loop\n", "").replace(
            "    errors\n",
            &format!("    bind 127.0.0.1\n    tls {} {}\n", control.certificate().display(), control.key().display()),
        );
        let cut = |text: &str, from: &str, to: &str| {
            let (head, rest) = text.split_once(from).unwrap_or((text, ""));
            let tail = rest.split_once(to).map_or(rest, |(_, tail)| tail);
            format!("{head}{tail}")
        };
        let encrypted = cut(&cut(&encrypted, "    health {\n", "    }\n"), "    ready\n", "");
        let plain = corefile(&format!(".:{}", udp.port()), &kubeconfig).replacen(
            "    errors\n",
            "    bind 127.0.0.1\n    errors\n",
            1,
        );
        fs::write(&file, plain + &encrypted)?;
        let program = part(KUBE_PROXY, "coredns")?;
        let child = control.program("coredns", &program, &["-conf".to_owned(), file.display().to_string()])?;
        Ok(Self { name: "coredns", child, udp, tls })
    }

    pub(super) fn address(&self, mode: Mode) -> SocketAddr {
        match mode {
            Mode::Udp | Mode::Tcp => self.udp,
            Mode::Dot => self.tls,
        }
    }

    /// Waits until it knows the last Service.
    pub(super) fn wait(&self) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{}.svc.cluster.local.", service_name(SERVICES - 1)))?;
        question.add_query(Query::query(name, RecordType::A));
        let question = question.to_vec()?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let mut answer = [0; 1500];
            socket.send_to(&question, self.udp)?;
            if let Ok(length) = socket.recv(&mut answer)
                && Message::from_vec(&answer[..length]).is_ok_and(|answer| !answer.answers.is_empty())
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("{} does not know the Services after {} s: see its log", self.name, PATIENCE.as_secs());
    }

    /// The time of CPUs that it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .with_context(|| format!("{} has ended: see its log", self.name))?;
        let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
        let used = used(&text).with_context(|| format!("can't read {text:?}"))?;
        Ok(Duration::from_secs_f64(used as f64 / ticks as f64))
    }

    /// Its resident memory, in KiB.
    pub(super) fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Ticks in user space and in the kernel, of the text of /proc/PID/stat (proc(5)).
fn used(stat: &str) -> Option<u64> {
    // The name may have spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_user_space_and_kernel_counts() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 5 0 1000 1 2 3";
        assert_eq!(used(stat), Some(280));
        assert_eq!(used("42"), None);
    }
}
