use super::*;
use crate::netlink::{Change, RouteKind, Scope};
use crate::netns::{TestNetns, loopback_up, root};
use crate::udp::Family;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Netlink in a fresh namespace that holds one TUN device's worth of nothing: `lo`, brought up.
async fn in_namespace<Fut: Future<Output = ()>>(test: impl FnOnce(Netlink, u32) -> Fut) {
    let _namespace = TestNetns::enter();
    let netlink = Netlink::connect().expect("netlink is there");
    let lo = netlink
        .link("lo")
        .await
        .expect("listed")
        .expect("every namespace has it");
    assert!(lo.loopback && !lo.up);
    netlink.set_link_up(lo.index, true).await.expect("set up");
    test(netlink, lo.index).await;
}

#[tokio::test]
async fn addresses_come_and_go_and_doing_it_twice_is_no_error() {
    if !root("addresses") {
        return;
    }
    in_namespace(async |netlink, lo| {
        for (address, prefix) in [(ip("10.9.8.7"), 24), (ip("fd00:77::1"), 64)] {
            netlink
                .add_address(lo, address, prefix)
                .await
                .expect("added");
            netlink
                .add_address(lo, address, prefix)
                .await
                .expect("it was there");
            let all = netlink.addresses().await.expect("listed");
            let ours = all
                .iter()
                .find(|found| found.address == address)
                .expect("it is listed");
            assert_eq!(
                (ours.index, ours.prefix, ours.scope),
                (lo, prefix, Scope::Global)
            );
            assert!(!ours.tentative && !ours.deprecated);
            netlink
                .del_address(lo, address, prefix)
                .await
                .expect("removed");
            netlink
                .del_address(lo, address, prefix)
                .await
                .expect("it was gone");
            let all = netlink.addresses().await.expect("listed");
            assert!(all.iter().all(|found| found.address != address));
        }
    })
    .await;
}

#[tokio::test]
async fn a_route_is_read_back_as_it_was_added() {
    if !root("routes") {
        return;
    }
    in_namespace(async |netlink, lo| {
        netlink
            .add_address(lo, ip("10.9.8.7"), 24)
            .await
            .expect("added");
        netlink
            .add_address(lo, ip("fd00:77::1"), 64)
            .await
            .expect("added");
        let default4 = Route {
            table: 51820,
            ..Route::to(ip("0.0.0.0"), 0, lo)
        };
        let via4 = Route {
            metric: 77,
            ..Route::to(ip("192.0.2.0"), 24, lo).via(ip("10.9.8.1"))
        };
        let blackhole = Route {
            kind: RouteKind::Blackhole,
            interface: None,
            scope: Scope::Global,
            ..Route::to(ip("198.51.100.0"), 24, lo)
        };
        let default6 = Route {
            table: 51820,
            metric: 5,
            ..Route::to(ip("::"), 0, lo)
        };
        let source6 = Route {
            metric: 9,
            source: Some(ip("fd00:77::1")),
            ..Route::to(ip("2001:db8::"), 32, lo)
        };
        for route in [default4, via4, blackhole, default6, source6] {
            netlink.add_route(&route).await.expect("added");
            netlink.add_route(&route).await.expect("it was there");
            let all = netlink.routes().await.expect("listed");
            assert!(all.contains(&route), "{route:?} is not among {all:#?}");
            netlink.del_route(&route).await.expect("removed");
            netlink.del_route(&route).await.expect("it was gone");
            assert!(!netlink.routes().await.expect("listed").contains(&route));
        }
    })
    .await;
}

#[tokio::test]
async fn a_rule_is_read_back_as_it_was_added() {
    if !root("rules") {
        return;
    }
    in_namespace(async |netlink, _| {
        let before = netlink.rules().await.expect("listed");
        for family in [Family::V4, Family::V6] {
            let all = if family == Family::V4 {
                ip("10.0.0.0")
            } else {
                ip("fd00::")
            };
            let plain = Rule::lookup(family, 1000, 254);
            let marked = Rule {
                mark: Some(0x4d52),
                ..Rule::lookup(family, 1001, 51820)
            };
            let masked = Rule {
                mark: Some(0x100),
                mask: Some(0xff00),
                ..marked.clone()
            };
            let suppressing = Rule {
                suppress_prefix_length: Some(0),
                ..Rule::lookup(family, 1002, 254)
            };
            let inverted = Rule {
                invert: true,
                ..marked.clone()
            };
            let narrow = Rule {
                from: Some((all, 16)),
                to: Some((all, 24)),
                incoming: Some("lo".to_owned()),
                ..Rule::lookup(family, 1003, 51820)
            };
            for rule in [plain, marked, masked, suppressing, inverted, narrow] {
                netlink.add_rule(&rule).await.expect("added");
                netlink.add_rule(&rule).await.expect("it was there");
                let all = netlink.rules().await.expect("listed");
                let times = all.iter().filter(|found| **found == rule).count();
                assert_eq!(times, 1, "{rule:?} in {all:#?}");
                netlink.del_rule(&rule).await.expect("removed");
                netlink.del_rule(&rule).await.expect("it was gone");
            }
        }
        assert_eq!(netlink.rules().await.expect("listed"), before);
    })
    .await;
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    if !root("watching") {
        return;
    }
    let _namespace = TestNetns::enter();
    let netlink = Netlink::connect().expect("netlink is there");
    let mut watch = Netlink::watch().expect("watching");
    let lo = loopback_up(&netlink).await;
    netlink.set_link_mtu(lo, 9000).await.expect("set");
    netlink
        .add_address(lo, ip("10.9.8.7"), 24)
        .await
        .expect("added");
    let route = Route {
        table: 99,
        ..Route::to(ip("192.0.2.0"), 24, lo)
    };
    netlink.add_route(&route).await.expect("added");
    netlink.del_route(&route).await.expect("removed");
    netlink
        .del_address(lo, ip("10.9.8.7"), 24)
        .await
        .expect("removed");

    let mut seen = Vec::new();
    loop {
        let change = watch.next().await.expect("the kernel goes on telling");
        let last = matches!(&change, Change::AddressGone(gone) if gone.address == ip("10.9.8.7"));
        seen.push(change);
        if last {
            break;
        }
    }
    let up =
        |change: &Change| matches!(change, Change::LinkSet(link) if link.up && link.index == lo);
    assert!(seen.iter().any(up), "{seen:#?}");
    let wide = |change: &Change| matches!(change, Change::LinkSet(link) if link.mtu == 9000);
    assert!(seen.iter().any(wide), "{seen:#?}");
    assert!(seen.contains(&Change::RouteSet(route.clone())), "{seen:#?}");
    assert!(seen.contains(&Change::RouteGone(route)), "{seen:#?}");
}

#[tokio::test]
async fn what_the_kernel_refuses_is_said_in_a_sentence() {
    let netlink = Netlink::connect().expect("netlink is there");
    let failure = netlink
        .set_link_mtu(u32::MAX >> 1, 1400)
        .await
        .expect_err("no such interface");
    assert!(
        failure
            .to_string()
            .starts_with("cannot set the MTU of interface"),
        "{failure}"
    );
}
