//! Order of the changes to the tables of services.
