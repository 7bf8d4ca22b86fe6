#!/bin/sh
# Turns off one defence of the end-to-end module at a time and shows that the tests which watch it fail: one
# beside the code, and, where the defence can be seen from outside, an attack on the real dsc and daemon.
# A canary that still sings (the test passes) is an error.
#
#   scripts/canaries.sh             all of them
#   scripts/canaries.sh FEATURE…    only these features
#
# Not part of scripts/test.sh: each of the 23 features builds the crate and its test binaries anew, which
# takes far longer than all the tests. Run it after a change in src/e2e, src/bin/dsc or their tests.
set -u
cd "$(dirname "$0")/.." || exit 1

wanted=" $* "
sung=0
canary() {
    feature=$1 target=$2 test=$3
    case "$wanted" in
        "  " | *" $feature "*) ;;
        *) return ;;
    esac
    # The suite must build with the defence off, and the test must exist: only its failure counts.
    # The attacks run the daemon too.
    features=$feature
    [ "$target" = "--test attacks" ] && features="daemon,$feature"
    # shellcheck disable=SC2086
    if ! cargo test --locked -q --no-default-features --features "$features" $target --no-run >/dev/null 2>&1; then
        echo "BROKEN  $feature: does not build"
        sung=1
        return
    fi
    # shellcheck disable=SC2086
    out=$(cargo test --locked -q --no-default-features --features "$features" $target -- --exact "$test" 2>&1)
    if echo "$out" | grep -q "1 failed"; then
        echo "ok      $feature: $test fails"
    else
        echo "SINGS   $feature: $test passes without the defence"
        sung=1
    fi
}

canary break-contributory    --lib                   e2e::vectors::x25519_wycheproof
canary break-commitment      --lib                   e2e::caead::tests::a_salamander_is_refused
canary break-salt            --lib                   e2e::caead::tests::a_cloned_state_repeats_no_key_and_nonce
canary break-slot-hash       --lib                   e2e::multi::tests::who_knows_the_content_key_puts_no_other_payload_under_a_slot
canary break-padding         --lib                   e2e::padding::tests::another_length_or_pad_is_refused
canary break-ad-recipient    --lib                   e2e::ratchet::tests::the_associated_data_matches_the_worked_example
canary break-max-skip        --lib                   e2e::ratchet::tests::a_thousand_are_skipped_and_no_more
canary break-conv-id         --lib                   e2e::send::tests::a_hostile_peer_gets_no_broken_message_through
canary break-commitment      --lib                   e2e::file::tests::cuts_swaps_and_flips_are_refused
canary break-padding         --lib                   e2e::file::tests::cuts_swaps_and_flips_are_refused
canary break-file-order      --lib                   e2e::file::tests::cuts_swaps_and_flips_are_refused
canary break-blob-id         --lib                   e2e::file::tests::cuts_swaps_and_flips_are_refused
canary break-file-name       --lib                   e2e::descriptor::tests::hostile_names_become_plain_ones
canary break-multi-aad       "--test e2e_pairwise"   a_copy_cannot_be_shown_in_another_conversation
canary break-replay-cache    "--test e2e_pairwise"   a_prekey_message_without_one_time_key_is_weak_and_opens_once
canary break-replay-mark     "--test e2e_pairwise"   the_same_envelope_again_is_a_replay_and_no_reset
canary break-verify-order    "--test e2e_pairwise"   nothing_can_be_moved_elsewhere
canary break-pin             "--test e2e_pairwise"   another_identity_is_refused_both_ways
canary break-unlisted        "--test e2e_pairwise"   an_unlisted_device_starts_no_session
canary break-born-clock      "--test e2e_pairwise"   a_session_from_the_future_is_refused
canary break-session-sender  "--test e2e_pairwise"   a_handshake_is_of_the_device_that_the_header_names
canary break-prekey-label    "--test e2e_directory"  one_kind_of_key_is_not_served_as_another
canary break-fork            "--test e2e_rooms"      a_second_entry_in_an_accepted_place_is_a_fork
canary break-closed-chain    "--test e2e_rooms"      every_epoch_has_a_new_chain_and_the_old_one_is_closed
canary break-group-signature "--test e2e_rooms"      no_member_writes_in_anothers_name

# From outside. break-verify-order bends a convenience that dsc does not use, and what break-ad-recipient
# leaves out is bound by the handshake's transcript as well: neither shows there.
canary break-contributory    "--test attacks"        directory::a03_low_order_points
canary break-commitment      "--test attacks"        peer::a17_salamander
canary break-salt            "--test attacks"        state::a20a_yesterdays_store
canary break-slot-hash       "--test attacks"        delivery::a10_who_knows_the_content_key
canary break-padding         "--test attacks"        peer::a19_injection
canary break-max-skip        "--test attacks"        delivery::a08_reorder_delay_drop
canary break-conv-id         "--test attacks"        peer::a19_injection
canary break-multi-aad       "--test attacks"        delivery::a10_reflection_and_readdressing
canary break-replay-cache    "--test attacks"        delivery::a07_prekey_replay_without_one_time_keys
canary break-replay-mark     "--test attacks"        delivery::a06_replay
canary break-pin             "--test attacks"        tampering::a13_reset_storm
canary break-unlisted        "--test attacks"        directory::a04_an_unlisted_device_starts_no_session
canary break-born-clock      "--test attacks"        delivery::a07_a_session_from_the_future
canary break-session-sender  "--test attacks"        delivery::a10_who_knows_the_content_key
canary break-prekey-label    "--test attacks"        directory::a02_forged_bundle
canary break-fork            "--test attacks"        tampering::a05_ghost_member
canary break-closed-chain    "--test attacks"        peer::a16_a_closed_chain_stays_closed
canary break-group-signature "--test attacks"        peer::a15_member_forges_member
canary break-commitment      "--test attacks"        files::a17_salamander_as_a_file
canary break-padding         "--test attacks"        files::a18_what_a_peer_uploads
canary break-file-order      "--test attacks"        files::a18_chunks_in_another_order
canary break-blob-id         "--test attacks"        files::a18_two_files_under_one_key
canary break-file-name       "--test attacks"        files_saved::a18_saved_files_stay_in_the_folder

exit $sung
