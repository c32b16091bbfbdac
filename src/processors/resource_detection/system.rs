//! The detector `system`: host and operating system, from what Linux shows in files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::config::SystemConfig;
use super::{Findings, Found, Place, names};
use crate::config::types::Any;

/// Finds what is asked for.
pub(super) fn detect(config: &SystemConfig, place: &Place) -> Findings {
    let mut findings = Findings::default();
    let mut cpu = None;
    for key in config.resource_attributes.all_on() {
        let text = |text: Option<String>| text.map(Any::Str);
        let value = match key {
            "host.name" => text(host_name(config, place)),
            "os.type" => text(Some(os_type().to_owned())),
            "host.id" => {
                text(place.read("/etc/machine-id").or_else(|| place.read("/var/lib/dbus/machine-id")))
            }
            "host.arch" => text(Some(arch().to_owned())),
            "host.ip" => list(addresses(place).iter().map(IpAddr::to_string)),
            "host.mac" => list(interfaces(place).into_iter().filter_map(|i| i.mac)),
            "host.interface" => list(interfaces(place).into_iter().map(|i| i.name)),
            "os.name" => text(os_release(place, "NAME")),
            "os.version" => text(os_release(place, "VERSION_ID")),
            "os.build.id" => text(os_release(place, "BUILD_ID")),
            "os.description" => text(description(place)),
            "host.cpu.cache.l2.size" => l2_cache(place).map(Any::Int),
            _ => {
                let info: &str = cpu.get_or_insert_with(|| place.read("/proc/cpuinfo").unwrap_or_default());
                text(cpu_field(key).and_then(|field| of_first_cpu(info, field)))
            }
        };
        match value {
            Some(value) => findings.found.push(Found::new(key, value)),
            None if key == "host.name" => {
                findings.missing.push("host.name: all hostname sources failed to get hostname".to_owned());
            }
            None => findings.missing.push(format!("{key}: this system does not say")),
        }
    }
    findings
}

fn host_name(config: &SystemConfig, place: &Place) -> Option<String> {
    let own = place.read("/proc/sys/kernel/hostname");
    config
        .hostname_sources
        .iter()
        .find_map(|source| names::find(*source, own.as_deref(), place.names.as_ref()))
}

/// As OpenTelemetry calls it.
fn os_type() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// As OpenTelemetry calls it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

fn list(values: impl Iterator<Item = String>) -> Option<Any> {
    let values: Vec<Any> = values.map(Any::Str).collect();
    (!values.is_empty()).then_some(Any::List(values))
}

/// A network interface that is up and not the host's own loop.
struct Interface {
    name: String,
    mac: Option<String>,
}

fn interfaces(place: &Place) -> Vec<Interface> {
    let directory = place.root.join("sys/class/net");
    let read = |path: &Path| std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned());
    let mut found: Vec<Interface> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let flags = read(&path.join("flags"))?;
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
            // IFF_UP and not IFF_LOOPBACK.
            if flags & 1 == 0 || flags & 8 != 0 {
                return None;
            }
            let mac = read(&path.join("address")).filter(|mac| mac.bytes().any(|b| !b"0:".contains(&b)));
            let mac = mac.map(|mac| mac.replace(':', "-").to_ascii_uppercase());
            Some(Interface { name: entry.file_name().into_string().ok()?, mac })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Addresses of this host that others can use, IPv4 first.
fn addresses(place: &Place) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in place.read("/proc/net/fib_trie").unwrap_or_default().lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|a| !a.is_loopback())
            && !out.contains(&address.into())
        {
            // The tables for all and for local routes may both have it.
            out.push(address.into());
        }
    }
    for line in place.read("/proc/net/if_inet6").unwrap_or_default().lines() {
        let address = line.split(' ').next().and_then(|hex| u128::from_str_radix(hex, 16).ok());
        if let Some(address) = address.map(Ipv6Addr::from).filter(|a| !a.is_loopback()) {
            out.push(address.into());
        }
    }
    out
}

/// A value from os-release, without its quotes.
fn os_release(place: &Place, name: &str) -> Option<String> {
    let text = place.read("/etc/os-release").or_else(|| place.read("/usr/lib/os-release"))?;
    let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Such as `Ubuntu 24.04 LTS (Linux web-1 6.8.0 #1 SMP x86_64)`.
fn description(place: &Place) -> Option<String> {
    let kernel = |name: &str| place.read(&format!("/proc/sys/kernel/{name}"));
    let parts: Vec<String> =
        ["ostype", "hostname", "osrelease", "version"].into_iter().filter_map(kernel).collect();
    if parts.is_empty() {
        return None;
    }
    let kernel = format!("{} {}", parts.join(" "), std::env::consts::ARCH);
    Some(match os_release(place, "PRETTY_NAME") {
        Some(name) => format!("{name} ({kernel})"),
        None => kernel,
    })
}

fn l2_cache(place: &Place) -> Option<i64> {
    (0..8).find_map(|index| {
        let read =
            |file: &str| place.read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}"));
        if read("level")? != "2" {
            return None;
        }
        let size = read("size")?;
        let (number, unit) = match size.strip_suffix('K') {
            Some(number) => (number, 1 << 10),
            None => (size.strip_suffix('M')?, 1 << 20),
        };
        number.parse::<i64>().ok()?.checked_mul(unit)
    })
}

/// The name in cpuinfo of what an attribute holds.
fn cpu_field(key: &str) -> Option<&'static str> {
    Some(match key {
        "host.cpu.vendor.id" => "vendor_id",
        "host.cpu.family" => "cpu family",
        "host.cpu.model.id" => "model",
        "host.cpu.model.name" => "model name",
        "host.cpu.stepping" => "stepping",
        _ => return None,
    })
}

fn of_first_cpu(info: &str, field: &str) -> Option<String> {
    let value = info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == field).then(|| value.trim())
    })?;
    (!value.is_empty()).then(|| value.to_owned())
}
