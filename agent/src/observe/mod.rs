//! What the agent shows of itself over HTTP: health for probes and load balancers, metrics for Prometheus.

mod health;
mod metrics;
mod service_health;

pub use health::HealthServer;
pub use metrics::MetricsServer;
pub use service_health::{checks, run as serve_checks};
