#!/bin/sh
# Turns off one defence of the end-to-end module at a time and shows that the test which watches it fails.
# A canary that still sings (the test passes) is an error.
#
# Not part of scripts/test.sh: each of the twenty features builds the crate and a test binary anew, which
# takes far longer than all the tests. Run it after a change in src/e2e or its tests.
set -u
cd "$(dirname "$0")/.." || exit 1

sung=0
canary() {
    feature=$1 target=$2 test=$3
    # The suite must build with the defence off, and the test must exist: only its failure counts.
    # shellcheck disable=SC2086
    if ! cargo test --locked -q --no-default-features --features "$feature" $target --no-run >/dev/null 2>&1; then
        echo "BROKEN  $feature: does not build"
        sung=1
        return
    fi
    # shellcheck disable=SC2086
    out=$(cargo test --locked -q --no-default-features --features "$feature" $target -- --exact "$test" 2>&1)
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

exit $sung
