//! [`Route`]: the positions of an operation, and how a child gets to each of them.

use std::collections::HashMap;

use libc::{PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_SYSCALL};

use super::At;
use super::tracee::{Request, Stop, Tracee};
use crate::Outcome;

/// What it costs to arrive at a breakpoint, in single steps.
const ARRIVAL: usize = 5;

/// The positions of an operation, from the one before its first instruction to its end.
pub(super) enum Route {
    Instructions {
        /// The address of the next instruction at each position but the end.
        path: Vec<u64>,
        /// Where to set the breakpoint to reach each position.
        anchors: Vec<Anchor>,
    },
    /// So many positions at the beginnings and ends of system calls, and after each of those for some steps.
    SystemCalls { end: usize, steps: usize },
}

/// A position that is reached by a breakpoint, after so many arrivals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    position: usize,
    arrivals: usize,
}

impl Route {
    /// Follows a child to the end of the operation.
    pub(super) fn of(at: At, child: &Tracee) -> Outcome<Self> {
        if let At::SystemCalls { steps } = at {
            let mut stops = 1;
            while child.resume(PTRACE_SYSCALL)? != Stop::Marker {
                stops += 1;
            }
            let end = stops * (1 + steps);
            return Ok(Self::SystemCalls { end, steps });
        }
        let mut path = vec![child.at()?];
        while child.resume(PTRACE_SINGLESTEP)? != Stop::Marker {
            path.push(child.at()?);
        }
        let anchors = anchors(&path);
        Ok(Self::Instructions { path, anchors })
    }

    /// Returns the last position: the end.
    pub(super) fn end(&self) -> usize {
        match self {
            Self::Instructions { path, .. } => path.len(),
            Self::SystemCalls { end, .. } => *end,
        }
    }

    /// Leads a new child to a position. Returns `false` if it went another way.
    pub(super) fn lead(&self, child: &Tracee, position: usize) -> Outcome<bool> {
        let (path, anchors) = match self {
            Self::Instructions { path, anchors } => (path, anchors),
            Self::SystemCalls { .. } => return self.lead_by_steps(child, position),
        };
        let Some(anchor) = anchors.get(position) else {
            return Ok(child.resume(PTRACE_CONT)? == Stop::Marker);
        };
        if anchor.position > 0 && !arrive(child, path[anchor.position], anchor.arrivals)? {
            return Ok(false);
        }
        let is_there = lead_by(PTRACE_SINGLESTEP, child, position - anchor.position)?;
        Ok(is_there && child.at()? == path[position])
    }

    /// Leads a new child as far, without breakpoints. Returns `false` if it gets to the end before.
    pub(super) fn lead_by_steps(&self, child: &Tracee, position: usize) -> Outcome<bool> {
        match self {
            Self::Instructions { .. } => lead_by(PTRACE_SINGLESTEP, child, position),
            Self::SystemCalls { steps, .. } => {
                let (stops, behind) = (position / (1 + steps), position % (1 + steps));
                Ok(lead_by(PTRACE_SYSCALL, child, stops)?
                    && lead_by(PTRACE_SINGLESTEP, child, behind)?)
            }
        }
    }
}

/// Resumes a child so many times. Returns `false` if the operation ends before.
fn lead_by(request: Request, child: &Tracee, times: usize) -> Outcome<bool> {
    for _ in 0..times {
        if child.resume(request)? == Stop::Marker {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets a child run until it has arrived at an address so many times. Returns `false` if it does not, or if there
/// can be no breakpoint, as in the code that the kernel provides.
fn arrive(child: &Tracee, address: u64, times: usize) -> Outcome<bool> {
    for arrival in 1..=times {
        let Ok(word) = child.set_breakpoint(address) else {
            return Ok(false);
        };
        if child.resume(PTRACE_CONT)? != Stop::Trap {
            return Ok(false);
        }
        child.write_text(address, word)?;
        child.go_to(address)?;
        if arrival < times && child.resume(PTRACE_SINGLESTEP)? != Stop::Trap {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the anchor of each position that costs least.
fn anchors(path: &[u64]) -> Vec<Anchor> {
    let mut arrivals = HashMap::new();
    let mut best = Anchor {
        position: 0,
        arrivals: 0,
    };
    let cost = |anchor: Anchor, position| ARRIVAL * anchor.arrivals + position - anchor.position;
    let anchor_of = |(position, address)| {
        let arrivals = arrivals.entry(address).or_insert(0);
        *arrivals += 1;
        let here = Anchor {
            position,
            arrivals: *arrivals,
        };
        if cost(here, position) < cost(best, position) {
            best = here;
        }
        best
    };
    path.iter().enumerate().map(anchor_of).collect()
}
