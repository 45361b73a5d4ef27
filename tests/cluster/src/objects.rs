//! What tests put into the cluster: servers behind a service, and clients on every node. All run the lab's program, from an
//! image that `cargo xtask test` has loaded.

use fairlead_cluster::LAB_IMAGE;

/// The namespace of all of it.
pub(crate) const NAMESPACE: &str = "strain";

/// Servers on every node behind the service `echo` (TCP and UDP 7000), a client on every node.
pub(crate) fn strain() -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
{}
---
{}
---
{}
"#,
        service("echo", "echo"),
        daemon_set("echo", &["serve", "--tcp", "7000", "--udp", "7000"]),
        daemon_set("client", &["serve"]),
    )
}

/// A service of this name, of the servers of that one.
pub(crate) fn service(name: &str, servers: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {{app: {servers}}}
  ports:
  - {{name: tcp, port: 7000, protocol: TCP}}
  - {{name: udp, port: 7000, protocol: UDP}}"#
    )
}

fn daemon_set(name: &str, arguments: &[&str]) -> String {
    let command = [&["/usr/bin/fairlead-lab"], arguments].concat();
    format!(
        r#"apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: {name}
        image: {LAB_IMAGE}
        imagePullPolicy: Never
        command: {command:?}
        env:
        - name: POD_NAME
          valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
        - name: NODE_NAME
          valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}"#
    )
}

/// A pod for the file of a kubelet, which says that it is ready when somebody from its node gets through to it.
#[must_use]
pub fn static_pod() -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: fixed, namespace: {NAMESPACE}, labels: {{app: fixed}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: fixed
    image: {LAB_IMAGE}
    imagePullPolicy: Never
    command: [/usr/bin/fairlead-lab, serve, --tcp, "7000"]
    readinessProbe: {{periodSeconds: 1, tcpSocket: {{port: 7000}}}}
    env:
    - {{name: POD_NAME, value: fixed}}
    - {{name: NODE_NAME, value: node-1}}
"#
    )
}

/// Servers behind the service `rolling` that are replaced without a failure if the network does its part: each goes on for
/// some seconds after it is said to terminate.
pub(crate) fn rolling() -> String {
    format!(
        r#"
{}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: rolling, namespace: {NAMESPACE}}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: rolling}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 2}}}}
  template:
    metadata: {{labels: {{app: rolling}}}}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
      - name: rolling
        image: {LAB_IMAGE}
        imagePullPolicy: Never
        command: [/usr/bin/fairlead-lab, serve, --tcp, "7000", --udp, "7000"]
        readinessProbe: {{periodSeconds: 1, tcpSocket: {{port: 7000}}}}
        lifecycle: {{preStop: {{sleep: {{seconds: 10}}}}}}
        env:
        - name: POD_NAME
          valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
        - name: NODE_NAME
          valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}
"#,
        service("rolling", "rolling")
    )
}

/// A policy that selects every server of the load and lets the load pass, so that nothing may change when it comes or goes.
pub(crate) const HARMLESS_POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: harmless, namespace: strain}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [echo, rolling]}]}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{protocol: TCP, port: 7000}, {protocol: UDP, port: 7000}]
";

/// Pods that only exist: so many, anywhere.
///
/// With a grace period of zero the API server would drop a pod's object long before its node has ended it.
pub(crate) fn crowd(count: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: crowd, namespace: {NAMESPACE}}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: crowd}}}}
  template:
    metadata: {{labels: {{app: crowd}}}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - name: crowd
        image: {LAB_IMAGE}
        imagePullPolicy: Never
        command: [/usr/bin/fairlead-lab, serve]
"#
    )
}
