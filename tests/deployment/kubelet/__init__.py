"""Pods without a cluster: what a manifest says of a container, run as kubelet runs it, as processes of this machine.

As in a cluster: command, arguments and environment out of manifest, Dockerfile, ConfigMaps, Secrets and the downward
API; user, groups, no capabilities and no new privileges; a root filesystem of its own, read-only where the manifest
says so, with the volumes where it says; a process tree of its own, whose first process gets SIGTERM, and SIGKILL when
`terminationGracePeriodSeconds` are over; the names of Services.

Other than in a cluster: Debian and the virtual environment are this machine's, in place of the image's; all pods share
one network, so that every Service's name leads to its loopback and no NetworkPolicy holds anybody back; claims are
folders of one disk; limits of memory and CPU, seccomp and devices are not applied. Probes are the test's to ask.

Takes root and the programs in `node.PROGRAMS`.
"""
