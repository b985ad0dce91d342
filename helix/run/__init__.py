"""The plan really serves: workers that hold layers, links between them, a head that routes."""
