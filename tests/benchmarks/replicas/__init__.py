"""`make replicas`: three replicas behind a load balancer follow the store's pointer under traffic."""
