"""A month of mail that nobody sent, through `hybridgrey replay`: what each way of filtering does to it.

Words: a *kind* of mail is what its sender and its retries have in common. An *origin* is where a sender's
mail comes from: addresses, the schedule of retries, what SPF and the lists say of it. A *world* is a set of
numbers, each with its source or with a range in which nobody knows it. A *variant* is a configuration. All is
made from a seed: the same seed gives the same mail and the same tables.

In reading order: `assumptions` (all numbers), `schedules` (when retries come), `origins` (from where),
`catalogue` (the origins of one world), `envelopes` (sender addresses), `ham` and `spam` (the messages),
`variants` (configurations), `measure` (what becomes of the mail), `tables` (text and Markdown), `__main__`
(the command).
"""
