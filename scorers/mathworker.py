"""stub"""
class MathPool:
    def ask(self, a: str, b: str) -> bool | None: return None
    async def ask_async(self, a: str, b: str) -> bool | None: return None
