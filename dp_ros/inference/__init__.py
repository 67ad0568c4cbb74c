"""How a policy runs fast: engines that answer a request of the controller with a chunk of actions."""
