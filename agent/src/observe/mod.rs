//! What the agent shows of itself over HTTP: health for probes and load balancers, metrics for Prometheus.

mod health;
mod metrics;
mod requests;
mod service_health;

pub use health::HealthServer;
pub use metrics::{MetricsServer, configuration};
pub use service_health::{checks, run as serve_checks};
