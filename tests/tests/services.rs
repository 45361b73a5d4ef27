//! Services by cluster address: the rows `S…` of the services table. Each test goes both ways to a service, at the
//! socket and per packet, and through both families.
