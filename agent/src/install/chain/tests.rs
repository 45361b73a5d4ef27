use proptest::prelude::*;

use super::*;

fn own(chain: &[Value]) -> Own {
    let Value::Object(entry) = json!({"type": PLUGIN, "capabilities": {"portMappings": true}}) else { unreachable!() };
    let chain = chain.iter().map(|entry| entry.to_string().parse().unwrap()).collect();
    Own { entry, chain }
}

fn bytes(list: &Value) -> Vec<u8> {
    list.to_string().into_bytes()
}

/// What the file becomes.
fn becomes(own: &Own, list: &Value) -> Value {
    own.amend(Some(&bytes(list)))
        .map_or_else(|| list.clone(), |amended| serde_json::from_slice(&amended.content).unwrap())
}

fn types(list: &Value) -> Vec<String> {
    plugin_types(&bytes(list))
}

fn fresh(own: &Own) -> Value {
    serde_json::from_slice(&own.amend(None).unwrap().content).unwrap()
}

#[test]
fn c35_what_others_appended_stays_and_is_no_reason_to_write() {
    let own = own(&[]);
    let mut list = fresh(&own);
    list["plugins"].as_array_mut().unwrap().push(json!({"type": "istio-cni", "ambient_enabled": true}));
    list["plugins"].as_array_mut().unwrap().insert(0, json!({"type": "first"}));
    list["disableGC"] = json!(true);
    list["cniVersion"] = json!("0.3.1");
    list.as_object_mut().unwrap().remove("cniVersions");
    assert_eq!(own.amend(Some(&bytes(&list))), None);
}

#[test]
fn c35_our_part_is_put_right_in_its_place() {
    let own = own(&[]);
    let mut list = fresh(&own);
    list["plugins"] =
        json!([{"type": "first"}, {"type": PLUGIN, "socket": "/old"}, {"type": "istio-cni"}, {"type": PLUGIN}]);
    list["name"] = json!("other");
    list["cniVersions"] = json!(["9.0.0"]);
    list["disableGC"] = json!(true);
    let after = becomes(&own, &list);
    assert_eq!(after["plugins"], json!([{"type": "first"}, own.entry, {"type": "istio-cni"}]));
    assert_eq!((&after["name"], &after["disableGC"]), (&json!(DEFAULT_NETWORK), &json!(true)));
    assert_eq!(after["cniVersions"], json!(["1.0.0", "1.1.0"]));
    list["plugins"] = json!([{"type": "istio-cni"}]);
    assert_eq!(types(&becomes(&own, &list)), [PLUGIN, "istio-cni"]);
}

#[test]
fn c35_what_can_t_be_kept_is_said_to_be_lost() {
    let own = own(&[]);
    let loses = |text: &str| own.amend(Some(text.as_bytes())).map(|amended| amended.loses);
    for broken in ["torn", "[]", "7", r#"{"plugins": {}}"#, r#"{"plugins": [{"typ": "x"}]}"#, r#"{"plugins": [null]}"#]
    {
        assert_eq!(loses(broken), Some(true), "{broken}");
    }
    for poor in ["", " \n", "{}", r#"{"plugins": [{"type": "x"}]}"#] {
        assert_eq!(loses(poor), Some(false), "{poor:?}");
    }
    let unfinished = |text: &str| own.amend(Some(text.as_bytes())).map(|amended| amended.unfinished);
    for (text, expected) in [("", true), ("\n", true), ("torn", true), ("{}", false), (r#"{"plugins": [7]}"#, true)] {
        assert_eq!(unfinished(text), Some(expected), "{text:?}");
    }
    assert!(!own.amend(None).unwrap().unfinished, "nobody writes what is not there");
    // What is usable of it is kept all the same.
    let amended = own.amend(Some(br#"{"plugins": [null, {"type": "x"}]}"#)).unwrap();
    assert_eq!(plugin_types(&amended.content), [PLUGIN, "x"]);
}

#[test]
fn c36_the_setting_puts_plugins_behind_ours_and_takes_only_those_away() {
    let (tuning, portmap) = (json!({"type": "tuning", "mtu": 1400}), json!({"type": "portmap"}));
    let both = own(&[tuning.clone(), portmap.clone()]);
    let mut list = fresh(&both);
    assert_eq!(types(&list), [PLUGIN, "tuning", "portmap"]);
    list["plugins"].as_array_mut().unwrap().push(json!({"type": "istio-cni"}));
    list["plugins"].as_array_mut().unwrap().insert(2, json!({"type": "sbr"}));
    assert_eq!(both.amend(Some(&bytes(&list))), None, "others may stand between them");
    let other = own(&[portmap.clone(), json!({"type": "tuning", "mtu": 1300})]);
    let after = becomes(&other, &list);
    assert_eq!(types(&after), [PLUGIN, "portmap", "tuning", "sbr", "istio-cni"]);
    assert_eq!(after["plugins"][2]["mtu"], 1300);
    let none = becomes(&own(&[]), &after);
    assert_eq!(types(&none), [PLUGIN, "sbr", "istio-cni"]);
    assert!(none.get(CHAIN).is_none());
    // An entry that the setting never named is another's, whatever its type.
    let mut list = fresh(&own(&[]));
    list["plugins"].as_array_mut().unwrap().push(tuning);
    assert_eq!(own(&[]).amend(Some(&bytes(&list))), None);
}

#[test]
fn c43_plugins_that_break_pods_are_refused_with_what_to_do_instead() {
    let error = r#"{"type": "sbr"}"#.parse::<ChainedPlugin>().unwrap_err();
    assert!(error.starts_with("sbr ") && error.contains("additional interface"), "{error}");
    let error = r#"{"type": "bandwidth", "capabilities": {"bandwidth": true}}"#.parse::<ChainedPlugin>().unwrap_err();
    assert!(error.starts_with("bandwidth ") && error.contains("kubernetes.io/egress-bandwidth"), "{error}");
}

#[test]
fn c36_a_plugin_of_the_setting_is_an_object_with_a_type() {
    for (text, says) in [
        ("tuning", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", "`type`"),
        (r#"{"type": ""}"#, "`type`"),
        (r#"{"type": 1}"#, "`type`"),
        (r#"{"type": "fairlead-cni"}"#, "already in the list"),
    ] {
        let error = text.parse::<ChainedPlugin>().unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert_eq!(r#"{"type": "tuning"}"#.parse::<ChainedPlugin>().unwrap().kind(), "tuning");
}

#[test]
fn runtimes_take_the_highest_version_of_a_list() {
    let highest = |list: Value| highest_version(&bytes(&list)).map(Version::as_str);
    assert_eq!(highest(fresh(&own(&[]))), Some("1.1.0"));
    assert_eq!(highest(json!({"cniVersion": "0.3.1"})), Some("0.3.1"));
    assert_eq!(highest(json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "9.0.0"]})), Some("1.0.0"));
    assert_eq!(highest(json!([])), None);
    assert!(highest_version(b"{").is_none());
}

#[test]
fn c37_a_configuration_in_front_whose_first_delegate_is_fairlead_leads_here() {
    let list = fresh(&own(&[]));
    let cilium = json!({"name": "cilium", "plugins": [{"type": "cilium-cni"}]});
    let multus = |extra: Value| {
        let mut conf = json!({"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus"});
        conf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        conf
    };
    let here = [
        list.clone(),
        multus(json!({"delegates": [list, cilium]})),
        multus(json!({"delegates": [list["plugins"][0]]})),
        multus(json!({"clusterNetwork": "fairlead"})),
        multus(json!({"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-fairlead.conflist"})),
        json!({"name": "multus", "plugins": [multus(json!({"clusterNetwork": "fairlead"})), {"type": "tuning"}]}),
        json!({"type": "meta", "delegate": list["plugins"][0]}),
    ];
    for conf in &here {
        assert!(leads_here(&bytes(conf), "10-fairlead.conflist"), "{conf}");
    }
    let elsewhere = [
        cilium.clone(),
        multus(json!({"delegates": [cilium, list]})),
        multus(json!({"delegates": []})),
        multus(json!({"clusterNetwork": "/etc/cni/net.d/05-cilium.conflist"})),
        multus(json!({})),
        json!([]),
        json!("fairlead-cni"),
    ];
    for conf in &elsewhere {
        assert!(!leads_here(&bytes(conf), "10-fairlead.conflist"), "{conf}");
    }
    assert!(!leads_here(b"{", "10-fairlead.conflist"));
    let deep = (0..10_000).fold("{}".to_owned(), |inner, _| format!(r#"{{"delegate":{inner}}}"#));
    assert!(!leads_here(deep.as_bytes(), "10-fairlead.conflist"));
}

/// An entry of a few kinds, so that equal ones come up.
fn entry() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => ("[a-d]", 0..3u8).prop_map(|(kind, x)| json!({"type": kind, "x": x})),
        2 => Just(json!({"type": PLUGIN, "capabilities": {"portMappings": true}})),
        1 => Just(json!({"type": PLUGIN})),
        1 => Just(json!(null)),
        1 => Just(json!({"type": 1})),
    ]
}

fn chain() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(("[a-d]", 0..3u8).prop_map(|(kind, x)| json!({"type": kind, "x": x})), 0..4)
}

fn list() -> impl Strategy<Value = Value> {
    let plugins = prop_oneof![
        8 => prop::collection::vec(entry(), 0..7).prop_map(Value::Array),
        1 => Just(json!("nonsense")),
    ];
    let recorded = prop_oneof![Just(json!(null)), chain().prop_map(Value::Array), Just(json!(7))];
    let version = prop_oneof![Just(json!("1.0.0")), Just(json!("0.4.0")), Just(json!("9")), Just(json!(null))];
    (plugins, recorded, version, any::<bool>()).prop_map(|(plugins, recorded, version, extra)| {
        let mut list = json!({"cniVersion": version, "name": "x", "plugins": plugins});
        if !recorded.is_null() {
            list[CHAIN] = recorded;
        }
        if extra {
            list["disableCheck"] = json!(true);
        }
        list
    })
}

/// How often each entry is in a list, without ours.
fn count(entries: &[Value], entry: &Value) -> usize {
    entries.iter().filter(|each| *each == entry).count()
}

proptest! {
    #[test]
    fn amending_is_idempotent_and_loses_no_entry_of_others(list in list(), wanted in chain()) {
        let own = own(&wanted);
        let existing = list["plugins"].as_array().cloned().unwrap_or_default();
        let recorded = list[CHAIN].as_array().cloned().unwrap_or_default();
        let amended = own.amend(Some(&bytes(&list)));
        let after = becomes(&own, &list);
        if let Some(amended) = &amended {
            prop_assert_eq!(own.amend(Some(&amended.content)), None, "idempotent");
            let unusable = !list["plugins"].is_array() || existing.iter().any(|each| !is_plugin(each));
            prop_assert_eq!(amended.loses, unusable);
        }
        let plugins = after["plugins"].as_array().unwrap();
        prop_assert_eq!(plugins.iter().filter(|each| is_own(each)).count(), 1);
        prop_assert!(plugins.contains(&Value::Object(own.entry.clone())));
        prop_assert_eq!(&after["name"], DEFAULT_NETWORK);
        prop_assert_eq!(&after["disableCheck"], &list["disableCheck"]);
        // Each entry of another's is there as often as before, less those that the setting had put there.
        for entry in existing.iter().filter(|each| is_plugin(each) && !is_own(each)) {
            let of_setting = count(&recorded, entry).saturating_sub(count(&wanted, entry));
            prop_assert!(count(plugins, entry) >= count(&existing, entry).saturating_sub(of_setting), "{entry} is lost");
        }
        // In their order, those aside that the setting named or names.
        let others = |entries: &[Value]| -> Vec<Value> {
            let kept = |each: &&Value| is_plugin(each) && !is_own(each) && !wanted.contains(each) && !recorded.contains(each);
            entries.iter().filter(kept).cloned().collect()
        };
        prop_assert_eq!(others(&existing), others(plugins));
        // Those of the setting stand behind ours, in its order.
        let at = plugins.iter().position(is_own).unwrap();
        let mut behind = plugins[at + 1..].iter();
        prop_assert!(wanted.iter().all(|entry| behind.any(|there| there == entry)), "{:?}", plugins);
    }

    #[test]
    fn any_bytes_become_a_list_that_holds(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let own = own(&[json!({"type": "a"})]);
        let amended = own.amend(Some(&input)).unwrap();
        prop_assert_eq!(own.amend(Some(&amended.content)), None);
        prop_assert_eq!(plugin_types(&amended.content), [PLUGIN, "a"]);
        let _any = leads_here(&input, "10-fairlead.conflist");
    }
}
