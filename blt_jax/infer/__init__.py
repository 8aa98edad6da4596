"""Generation with caches: a prompt in one parallel pass, then a loop on the device, one position at
a time.
"""
