//! Routing: tables of what goes where.
