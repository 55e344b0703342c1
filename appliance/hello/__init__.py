"""Server names of flows, read from copies of their first packets: TLS over TCP, and QUIC.

`reader` is the door; behind it `packet` finds a flow's octets, `tls` and `quic` unwrap what a
client says first, `client_hello` reads the name in it. All octets come from strangers: whatever
they are, nothing is raised, and what is kept and done for a flow has a bound. The package only
reads. It must never hold up, change or answer a packet.
"""
