//! In network namespaces of their own: /proc/sys/net shows that of the thread that opens it.

use std::fs;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs with the settings of a namespace of its own, and a run directory that goes with it.
fn with_settings(name: &str, test: impl FnOnce(&Sysctls) + Send + 'static) {
    let run_dir = std::env::temp_dir().join(format!("fairlead-sysctl-{}-{name}", std::process::id()));
    let dir = run_dir.clone();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        test(&Sysctls::new(Path::new(PROC_SYS), &dir));
    })
    .join()
    .unwrap();
    fs::remove_dir_all(run_dir).unwrap();
}

fn given(sysctls: &Sysctls, settings: &[(&str, &str)]) {
    settings.iter().for_each(|(key, value)| sysctls.write(key, value).unwrap());
}

fn expect(sysctls: &Sysctls, settings: &[(&str, &str)]) {
    for (key, value) in settings {
        assert_eq!(sysctls.read(key).as_deref(), Some(*value), "{key}");
    }
}

#[test]
fn forwarding_keeps_router_advertisements_and_all_of_it_can_be_undone() {
    with_settings("forwarding", |sysctls| {
        let before = [
            ("net/ipv4/conf/all/accept_redirects", "0"),
            ("net/ipv4/conf/default/forwarding", "0"),
            ("net/ipv4/conf/lo/forwarding", "1"),
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv6/conf/lo/forwarding", "0"),
            ("net/ipv6/conf/lo/accept_ra", "1"),
        ];
        given(sysctls, &[("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")]);
        given(sysctls, &before);
        expect(sysctls, &before);
        for _ in 0..2 {
            assert!(sysctls.prepare().errors.is_empty());
            expect(
                sysctls,
                &[
                    ("net/ipv4/ip_forward", "1"),
                    ("net/ipv4/conf/lo/forwarding", "1"),
                    ("net/ipv6/conf/all/forwarding", "1"),
                    ("net/ipv6/conf/lo/forwarding", "1"),
                    ("net/ipv6/conf/lo/accept_ra", "2"),
                ],
            );
        }
        let (restored, errors) = sysctls.restore();
        assert!(errors.is_empty() && restored >= 3, "{restored} {errors:?}");
        expect(sysctls, &before);
        assert_eq!(sysctls.restore().0, 0, "once is enough");
    });
}

#[test]
fn what_somebody_changed_since_stays() {
    with_settings("changed", |sysctls| {
        given(sysctls, &[("net/ipv4/conf/lo/rp_filter", "1")]);
        assert!(sysctls.is_strict("lo"));
        assert!(sysctls.prepare_uplink("lo", true).errors.is_empty());
        expect(sysctls, &[("net/ipv4/conf/lo/rp_filter", "2")]);
        assert!(!sysctls.is_strict("lo"));
        given(sysctls, &[("net/ipv4/conf/lo/rp_filter", "0")]);
        let (_, errors) = sysctls.restore();
        let text = errors.iter().map(ToString::to_string).find(|text| text.contains("rp_filter")).unwrap();
        assert!(text.contains("net.ipv4.conf.lo.rp_filter") && text.contains("is 0"), "{text}");
        expect(sysctls, &[("net/ipv4/conf/lo/rp_filter", "0")]);
    });
}

#[test]
fn strictness_for_all_is_met_on_the_device() {
    with_settings("strict", |sysctls| {
        given(sysctls, &[("net/ipv4/conf/all/rp_filter", "1"), ("net/ipv4/conf/lo/rp_filter", "0")]);
        assert!(sysctls.is_strict("lo"));
        assert!(sysctls.prepare_uplink("lo", true).errors.is_empty());
        expect(sysctls, &[("net/ipv4/conf/all/rp_filter", "1"), ("net/ipv4/conf/lo/rp_filter", "2")]);
        assert!(!sysctls.is_strict("lo"));
        assert!(sysctls.restore().1.is_empty());
        expect(sysctls, &[("net/ipv4/conf/lo/rp_filter", "0")]);
    });
}

#[test]
fn ports_are_reserved_where_the_kernel_would_give_them_away() {
    with_settings("ports", |sysctls| {
        given(sysctls, &[(LOCAL_PORTS, "1024 60999"), (RESERVED_PORTS, "8080,9148-9150")]);
        assert!(sysctls.prepare().errors.is_empty());
        expect(sysctls, &[(RESERVED_PORTS, "8080,9148-9150,30000-32767")]);
        assert!(sysctls.restore().1.is_empty());
        expect(sysctls, &[(RESERVED_PORTS, "8080,9148-9150")]);
    });
}

#[test]
fn only_what_overlaps_is_reserved() {
    assert_eq!(reserve("32768\t60999", ""), None);
    assert_eq!(reserve("1024\t60999", "").as_deref(), Some("30000-32767"));
    assert_eq!(reserve("1024\t60999", "1-30000").as_deref(), Some("1-30000,30000-32767"));
    assert_eq!(reserve("1024\t60999", "1-32767"), None);
    assert_eq!(reserve("32000 60999", "").as_deref(), Some("30000-32767"));
    assert_eq!(reserve("1024 20000", "20000-20010"), None);
    assert_eq!(reserve("1024 31000", "20000-20010").as_deref(), Some("20000-20010,30000-32767"));
}

#[test]
fn a_setting_that_cannot_be_written_is_named() {
    let sysctls = Sysctls::new(Path::new("/nonexistent"), Path::new("/nonexistent/run"));
    let error = sysctls.write("net/ipv4/ip_forward", "1").unwrap_err();
    assert!(error.to_string().contains("/nonexistent/net/ipv4/ip_forward to 1"), "{error}");
}
