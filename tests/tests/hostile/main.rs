//! Attacks with real packets: what one tries who has a pod, or a host beside the nodes, and what has to come of it. Each for
//! IPv4 and IPv6.
//!
//! | who | attack | what holds |
//! |---|---|---|
//! | a pod, on the node or elsewhere; a host outside | segments that a listener ignores (no flags, PSH, URG, ACK, FIN, SYN-ACK, RST, a wrong checksum) make a flow for a SYN that follows on the same ports, to a pod that lets nobody in | nothing but resets arrives, nothing is answered, no connection is made |
//! | the same | NULL, FIN, ACK and SYN-ACK scans of a pod that lets nobody in | silence: they learn nothing |
//! | a pod that may open no connections | the same segments, to a pod that is open | nothing but resets arrives, nothing is answered |
//! | anybody | source port 443 to any port of a pod that may only connect to port 443 | nothing but resets arrives, nothing is answered |
//! | the other end of a connection that a pod opened | a SYN back on the connection's own ports | it does not arrive, the connection goes on |
//! | anybody, while connections from before Fairlead are picked up | an ACK that is picked up, then a SYN on the same ports | the SYN does not arrive |
//! | the same | a SYN in fragments, whose first one's frame goes on as if it were another segment | the SYN does not arrive |
//! | a pod that may send nothing | ICMP errors with bytes of its choice that quote flows of others, to pods and to hosts outside | none arrives; no socket is refused, no path MTU falls |
//! | an open pod | the same, to a pod that lets nobody in | the same |
//! | a client of a NodePort | ICMP errors that quote its own flow, addressed to a pod that lets nobody in | none arrives |
//! | a host on the nodes' network | packets into a flow between two pods of a node, or of a node and its pod, from their addresses | none arrives, the flow goes on |
//! | a pod | frames with a tag of a VLAN | none leaves the node or reaches a pod; each is counted as `vlan` |
//! | a host on the nodes' network | frames with a tag of a VLAN, to a pod | none arrives |
//! | a pod | ten thousand ARP and neighbour discovery messages, for addresses of others and of nobody | the node and its pods have the neighbours that they had |
//! | a container of a node, or a machine behind it alone | packets to pods from the address of another node's pod | none arrives |
//! | a host outside, a pod, another node | packets that are refused, as fast as it can | it is told a thousand times a second; pods, nodes and other networks go on hearing |
//! | a router outside | errors about one flow of a pod, as fast as it can | 64 a second arrive, those about its other flows too |
//! | a process of the host, a machine behind the node | packets to a Service without endpoints, from the address of a pod or of a host outside | nobody is told who did not send them |
//! | a pod, a host outside | packets to all hosts of the nodes' network or of a pod range; a Service that claims such an address | no pod and no Service gets them; what comes from outside is the node's own |
//! | a router outside | ICMP errors about later fragments, with quotes that are cut off, or that go on behind the packet | none arrives; what it may quote does, however long |
//! | who may write a Pod | `hostIP`: a ClusterIP, another node's or another pod's address | the victim keeps its traffic on that node too; an Event, `fairlead status`, `doctor` and `service explain` name it |
//! | who may write a Service, or a load balancer's status | `externalIPs` and load balancers' addresses: ClusterIPs, pods, kubelets, the API server, NodePorts | the same, on every node |
//! | the same | an external address that another Service has already | the older one keeps it |
//! | a node | `status.podIPs` of its pods and addresses of its Node: those of other nodes' pods, of hosts outside | no policy takes an address for that pod; who has it keeps its name |
//! | a node, where annotations give ranges | a range that another node has, that holds a Service's address, or outside of what the setting permits | no node takes it for that node's; who has it keeps it |
//! | a pod | a later fragment right behind a packet that is allowed, of a datagram that is not, or of none | it does not arrive |
//! | pods that come and go | all the flows that they can get, one pod after the other | each gets as many as the first, and they go with it |
//! | a pod | new flows as fast as it can, beside a hundred pods whose datagrams are answered after 2 s and whose handshakes take 1 s | its own are refused (`flow_limit`, `flow_rate`); every other pod gets every answer |
//! | anybody | packets that are refused: with an address of another, to a pod that lets nobody in, answers that policy has come to deny | each is counted by its reason and to the pod that sent it or, where its policy says so, that it was for; nobody else's counts move |
//! | a host outside | 76 800 flows from one network to Services with session affinity | it loses its own places; every other client stays with its backend |
//! | who may open the agent's sockets | hundreds of connections that ask nothing; as many as there may be that ask and stay | the oldest that asks nothing goes for the next; while all have asked, the next is told so |
//! | who may write EndpointSlices | more endpoints of one namespace than there is room for | it is refused by name, and Services of others follow their endpoints |
//! | a pod, a client of a NodePort | packets of the tunnel to a node: to all its addresses, whole and in fragments, by a service whose endpoint is there | none is sent on; each is counted as `tunnel_port`, and an endpoint that a Node names is refused by name |
//! | a host behind a router | packets of the tunnel from a node's address | none gets in, unless that node is reached through the tunnel |
//! | who attaches programs before Fairlead's, by mistake or not | packets to a pod that lets nobody in | none arrives after the agent has looked |
//! | a pod in its first second, thirty at once; with an agent that is killed in it | connections to and from whom it may not speak with | none arrives |
//! | who removes programs, pins or the file system of pins, by mistake or not | packets to a pod that lets nobody in | none arrives, also without an agent; the agent puts everything back |
//! | who unmounts the file system of pins where the agent may not mount, or mounts another | the same, and connections that live | `fairlead install --keep` puts the same file system back, and the next agent goes on with it; nobody's pins are hidden |
//!
//! What is legitimate looks much the same and has to go on: a SYN that was lost is sent again and goes to the same
//! backend, a port is used again right after a close, errors from a flow's own end and from routers arrive, a tag that
//! only gives a priority is no tag, fragments arrive with packets of other flows between them.

mod begin;
mod broadcast;
mod claims;
mod counted;
mod crowded;
mod errors;
mod first;
mod flood;
mod fragments;
mod keep;
mod legitimate;
mod neighbours;
mod ranges;
mod scans;
mod shares;
mod told;
mod tunnel;
mod unhook;
mod vlans;
mod world;
