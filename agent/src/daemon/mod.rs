//! The loop that connects source, model, compiler, planner and tables.
