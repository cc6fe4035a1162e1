"""The only renderer: terminal, markdown, HTML, JUnit, charts."""
