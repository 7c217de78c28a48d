"""What people look at: a page with the live picture, the numbers behind it, and Prometheus' metrics."""

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""Files of the page, by path. Nobody needs a token for them: they tell nothing, and ask for one."""
