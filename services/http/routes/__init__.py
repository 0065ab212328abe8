"""The routes, a file for each resource: parse, call one method, answer. Each file has one `add`."""
