"""Does it hold here? Each statement of the documents beside what is measured, with figures, on one page a document.

``gallery_run.gallery`` runs it all. Each measurement runs in a process of its own, which imports no more than it needs.
"""
