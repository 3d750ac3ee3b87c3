"""The sections of the panel, one per file with its ``.ui`` of the same name; `widget.Panel` ties them together."""
