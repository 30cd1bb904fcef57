"""What people and programs meet: the page's parts, the REST routes, staging a Space."""
