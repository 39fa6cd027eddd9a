//! What users are promised, played in virtual time: one module per promise.

mod calls_are_sent_twice;
mod checksums_travel_begun;
mod classes_share;
mod clock_goes_back;
mod decisions_are_explained;
mod every_uplink_falls_silent;
mod far_uplink_is_used;
mod fat_far_uplink_leads;
mod harness;
mod headers_travel_squeezed;
mod hostile_datagrams;
mod life_goes_on;
mod links_of_every_kind;
mod marks_replace_losses;
mod modes_keep_their_word;
mod nat_rebinds;
mod paths_of_any_mtu;
mod process_restarts;
mod seeds;
mod slow_uplink_never_hurts;
mod two_uplinks_add_up;
mod uplink_dies_mid_call;
mod uplink_fades;
mod uplink_flaps;
mod workers_share_a_server;
