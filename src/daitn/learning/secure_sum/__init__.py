"""Secure sums, which hide every summand: Bonawitz et al. 2017, "Practical secure aggregation for
privacy-preserving machine learning", CCS; with the neighbours of Bell et al. 2020, "Secure
single-server aggregation with (poly)logarithmic overhead", CCS.

Each pair of members has a mask that one adds and the other subtracts, and each member one more of
its own. Masks of pairs cancel in the sum; where a member is lost in between, the others have shares
of the key by which its masks can be made again. Numbers are whole and modulo 2^64, so a sum is
exact. In order:

1. `Member.keys`: each makes keys for this sum, and signs them;
2. `Member.shares`: it shares out its secrets, sealed for each neighbour;
3. `Member.masked`: it adds its masks to its numbers;
4. `Member.agreement`: it signs whose numbers the sum has, once;
5. `Member.revealed`: if enough have signed the same, it reveals a share of each member's own mask,
   or of its key, never of both;
6. `unmasked`: the relay takes the masks off the sum.

All is plain state and arithmetic: what is sent, by whom and when is the caller's. The relay sees
public keys, sealed shares, masked numbers and, at last, shares. It can spoil a sum. It learns more
than a sum only with `least` members, or if members help it to have two sums agreed to: with `least`
of n, 2 `least` - n of them. The relay is a member itself, as a rule, and so the first of them. With
more than two thirds of n (Bonawitz et al., against active adversaries) they are more than a third.
"""
