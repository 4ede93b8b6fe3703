"""Do the statements of the documents hold? Each is compared with measurements and figures, on one page per document.

``gallery_run.gallery`` runs all measurements. Each runs in its own process, which imports only what it needs.
"""
