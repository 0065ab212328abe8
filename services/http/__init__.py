"""The routes, and what every request passes before a route sees it. Knows no Ray: `app` puts it into a process."""
