//! What the agent shows of itself over HTTP: health for probes and load balancers, metrics for Prometheus.

mod freshness;
mod health;
mod metrics;
mod service_health;

pub use freshness::Freshness;
pub use health::HealthServer;
pub use metrics::{Metrics, MetricsServer};
pub use service_health::{Check, CheckKey, Checks, checks, run as serve_checks};
