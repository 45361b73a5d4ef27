//! Cluster DNS as pods meet it: the rows `D…` of the DNS table through the `kube-dns` Service, over UDP and TCP.
