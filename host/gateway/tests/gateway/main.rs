//! The gateway as customers see it, before pods that echo.
#![cfg(test)]

mod endpoint;
mod jump;
mod support;
