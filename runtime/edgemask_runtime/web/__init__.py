"""What people look at: a page with the live picture, the numbers behind it, and Prometheus' metrics."""
